from __future__ import annotations

import json
from pathlib import Path

import pytest

from g2r_lightning.dialogue import Candidate, Example
from g2r_lightning.errors import DataError, StoreError
from g2r_lightning.store import CandidateStore, import_replies

EXAMPLES = [
    Example("my:1:1", ("hi there",), "hello"),
    Example("my:2:1", ("hi there",), "hey you"),
    Example("my:3:2", ("hi", "how are you? 🙂"), "fine"),
]


def jsonl(path: Path, *records: object) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n", encoding="utf-8")
    return path


def responses(store: Path) -> dict[str, list[str]]:
    return {e.example_id: [c.response for c in e.candidates] for e in CandidateStore(store).examples()}


def test_replies_are_matched_by_id_and_by_context(tmp_path):
    file = jsonl(
        tmp_path / "r.jsonl",
        {"id": "my:3:2", "replies": ["great 🎉", "so-so"]},
        "",
        {"context": ["hi   there "], "replies": ["welcome"]},
        {"id": "from my own system", "context": ["hi", "how are you? 🙂"], "replies": ["ok"]},
        {"context": ["never said"], "replies": ["lost"]},
    )
    report = import_replies(file, iter(EXAMPLES), tmp_path / "store", "my-llm")
    assert responses(tmp_path / "store") == {
        "my:1:1": ["hello", "welcome"],
        "my:2:1": ["hey you", "welcome"],
        "my:3:2": ["fine", "great 🎉", "so-so", "ok"],
    }
    assert (report.lines, report.unmatched_lines, report.replies) == (4, 1, 5)
    assert (report.examples, report.examples_with_replies) == (3, 3)
    assert not report.scores_written
    assert "5 replies added to 3 of 3 examples" in str(report)
    store = CandidateStore(tmp_path / "store")
    assert store.table(["source"])["source"].to_pylist() == [
        *("original", "my-llm"),
        *("original", "my-llm"),
        *("original", "my-llm", "my-llm", "my-llm"),
    ]
    assert store.candidates.teacher["name"] == "my-llm"
    with pytest.raises(StoreError, match=r"no finished score set.*alpha: 0"):
        store.teacher_scores("ll")


def test_duplicates_and_empty_replies_are_counted(tmp_path):
    file = jsonl(
        tmp_path / "r.jsonl",
        {"id": "my:1:1", "replies": ["hello ", "new", " ", "new", "Hello"]},
        {"id": "my:1:1", "replies": ["new\t"]},
    )
    report = import_replies(file, EXAMPLES, tmp_path / "store", "my-llm")
    assert responses(tmp_path / "store")["my:1:1"] == ["hello", "new", "Hello"]
    assert (report.replies, report.duplicates, report.empty, report.examples_with_replies) == (2, 3, 1, 1)


def scored(text: str, log_likelihood: object, num_tokens: object) -> dict[str, object]:
    return {"text": text, "log_likelihood": log_likelihood, "num_tokens": num_tokens}


def test_likelihoods_of_every_candidate_become_a_score_set(tmp_path):
    file = jsonl(
        tmp_path / "r.jsonl",
        {"id": "my:1:1", "replies": [scored("new", -4, 2), "new", scored("new", -9.0, 9), scored("hello", -3.0, 3)]},
        {"id": "my:2:1", "replies": [scored("hey you", -8.0, 4)]},
        {"id": "my:3:2", "replies": ["fine", scored("fine", -1.0, 2)]},
    )
    report = import_replies(file, EXAMPLES, tmp_path / "store", "my-llm", examples_per_shard=2)
    assert report.scores_written
    assert (report.scored, report.unscored, report.replies, report.duplicates) == (4, 0, 1, 6)
    store = CandidateStore(tmp_path / "store")
    assert store.score_names() == ["given"]
    assert store.teacher_scores("ll").tolist() == [-1.0, -2.0, -2.0, -0.5]
    assert store.teacher_scores("ll", "given", normalise=False).tolist() == [-3.0, -4.0, -8.0, -1.0]
    with pytest.raises(StoreError, match=r"--scoring\.prior=empty"):
        store.teacher_scores("mi")


def test_likelihoods_of_some_candidates_are_counted_and_not_written(tmp_path):
    file = jsonl(tmp_path / "r.jsonl", {"id": "my:1:1", "replies": [scored("new", -4.0, 2), "unscored"]})
    report = import_replies(file, EXAMPLES, tmp_path / "store", "my-llm")
    assert (report.scored, report.unscored) == (1, 4)
    assert CandidateStore(tmp_path / "store").score_names() == []
    assert "1 candidates have likelihoods, 4 (originals included) have none" in str(report)


BAD = [
    ("{not json", "broken JSON"),
    ({"id": "my:1:1"}, '"replies"'),
    ({"replies": ["a"]}, '"id"'),
    ({"id": 3, "replies": ["a"]}, '"id"'),
    ({"context": "hi there", "replies": ["a"]}, '"context"'),
    ({"id": "my:1:1", "replies": [1]}, '"text"'),
    ({"id": "my:1:1", "replies": [scored("a", 4.0, 2)]}, "at most 0"),
    ({"id": "my:1:1", "replies": [scored("a", "-4", 2)]}, "log_likelihood"),
    ('{"id": "my:1:1", "replies": [{"text": "a", "log_likelihood": NaN, "num_tokens": 2}]}', "nan.*finite"),
    ({"id": "my:1:1", "replies": [scored("a", -4.0, 0)]}, "num_tokens 0"),
    ({"id": "my:1:1", "replies": [scored("a", -4.0, None)]}, "num_tokens None"),
    ({"id": "my:1:1", "replies": [scored("a", None, 2)]}, "log_likelihood None"),
    ({"id": "my:1:1", "replies": ["fine", "half \ud800"]}, "half of a character"),
    ({"id": "my:1:1", "replies": [scored("a", -(10**400), 2)]}, "log_likelihood -1000"),
    ({"id": "my:1:1", "replies": [scored("a", -4.0, 2**31)]}, "num_tokens 2147483648"),
    ({"id": "my:1:1", "context": ["something else"], "replies": ["a"]}, "another context"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_a_faulty_line_is_counted_or_stops(tmp_path, bad, reason):
    file = jsonl(tmp_path / "r.jsonl", {"id": "my:2:1", "replies": ["good"]}, "", bad)
    report = import_replies(file, EXAMPLES, tmp_path / "store", "my-llm")
    assert [line for line, _ in report.bad_lines] == [3]
    assert f"line 3: {report.bad_lines[0][1]}" in str(report)
    assert responses(tmp_path / "store")["my:2:1"] == ["hey you", "good"]
    assert report.replies == 1
    with pytest.raises(DataError, match=rf"r\.jsonl:3: .*{reason}"):
        import_replies(file, EXAMPLES, tmp_path / "other", "my-llm", strict=True)
    assert not (tmp_path / "other").exists()


def test_no_match_shows_one_of_each_side(tmp_path):
    file = jsonl(tmp_path / "r.jsonl", {"context": ["Hi There"], "replies": ["x"]}, {"id": "z", "replies": []})
    with pytest.raises(StoreError) as caught:
        import_replies(file, EXAMPLES, tmp_path / "store", "my-llm")
    message = str(caught.value)
    assert "none of its 2 lines" in message
    assert "line 1" in message
    assert "['Hi There']" in message
    assert "id 'my:1:1', context ['hi there']" in message
    assert not (tmp_path / "store").exists()


def test_missing_files_sources_and_examples(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        import_replies(tmp_path / "none.jsonl", EXAMPLES, tmp_path / "store", "my-llm")
    file = jsonl(tmp_path / "r.jsonl", {"id": "my:1:1", "replies": ["a"]})
    with pytest.raises(StoreError, match="'original'"):
        import_replies(file, EXAMPLES, tmp_path / "store", "original")
    with pytest.raises(StoreError, match="no examples"):
        import_replies(file, [], tmp_path / "store", "my-llm")


def test_candidates_that_the_examples_bring_are_kept(tmp_path):
    example = Example("my:1:1", ("hi",), "hello", candidates=(Candidate("old", "generated", -1.0),))
    file = jsonl(tmp_path / "r.jsonl", {"id": "my:1:1", "replies": ["old", "new"]})
    report = import_replies(file, [example], tmp_path / "store", "my-llm")
    stored = next(iter(CandidateStore(tmp_path / "store").examples()))
    assert [(c.response, c.source, c.given_ll) for c in stored.candidates] == [
        ("hello", "original", None),
        ("old", "generated", -1.0),
        ("new", "my-llm", None),
    ]
    assert (report.replies, report.duplicates) == (1, 1)


def test_another_reply_file_into_the_same_store_is_refused(tmp_path):
    file = jsonl(tmp_path / "r.jsonl", {"id": "my:1:1", "replies": ["a"]})
    import_replies(file, EXAMPLES, tmp_path / "store", "my-llm")
    import_replies(file, EXAMPLES, tmp_path / "store", "my-llm")
    jsonl(file, {"id": "my:1:1", "replies": ["b"]})
    with pytest.raises(StoreError, match="--store"):
        import_replies(file, EXAMPLES, tmp_path / "store", "my-llm")
    assert responses(tmp_path / "store")["my:1:1"] == ["hello", "a"]
