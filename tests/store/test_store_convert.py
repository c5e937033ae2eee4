from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g2r_lightning.dialogue import Candidate, Example
from g2r_lightning.errors import StoreError
from g2r_lightning.store import CandidateStore, candidate_rows, export_g2r_release, write_store_from_examples

Line = tuple[tuple[str, ...], str, str, tuple[tuple[str, float], ...]]


def read_release(path: Path) -> list[Line]:
    """Read the authors' form, line by line."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    return [(tuple(r["context"]), r["response"], r["source"], tuple(sorted(r["score_infos"].items()))) for r in records]


def examples_of(lines: list[Line]) -> list[Example]:
    """Group release lines by context, as the form asks for."""
    groups: dict[tuple[str, ...], list[Candidate]] = {}
    for context, response, source, infos in lines:
        scores = dict(infos)
        groups.setdefault(context, []).append(Candidate(response, source, scores.get("ll"), scores.get("mi")))
    examples = []
    for index, (context, candidates) in enumerate(groups.items()):
        original = next(c for c in candidates if c.source == "original")
        examples.append(
            Example(f"g2r:{index}:{len(context)}", context, original.response, candidates=tuple(candidates))
        )
    return examples


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
infos = st.fixed_dictionaries({}, optional={"ll": numbers, "mi": numbers}).map(lambda d: tuple(sorted(d.items())))
line = st.tuples(
    st.lists(words, min_size=1, max_size=3).map(tuple), words, st.sampled_from(["original", "generated", "x"]), infos
)


def with_originals(lines: list[Line]) -> list[Line]:
    """Make the last line of every context that has no original one."""
    have = {context for context, _, source, _ in lines if source == "original"}
    last = {context: number for number, (context, *_) in enumerate(lines) if context not in have}.values()
    return [(c, r, "original" if number in last else s, i) for number, (c, r, s, i) in enumerate(lines)]


release = st.lists(line, min_size=1, max_size=12).map(with_originals)


@settings(max_examples=40, deadline=None)
@given(release, st.integers(1, 4))
def test_the_release_goes_in_and_out_without_loss(lines, examples_per_shard):
    with tempfile.TemporaryDirectory() as folder:
        write_store_from_examples(Path(folder) / "store", examples_of(lines), examples_per_shard=examples_per_shard)
        store = CandidateStore(Path(folder) / "store")
        assert export_g2r_release(store, Path(folder) / "out" / "release.jsonl") == len(lines)
        back = read_release(Path(folder) / "out" / "release.jsonl")
        assert sorted(back) == sorted(lines)
        write_store_from_examples(Path(folder) / "again", examples_of(back), examples_per_shard=examples_per_shard)
        assert list(CandidateStore(Path(folder) / "again").examples()) == list(store.examples())


def test_one_line_exactly_as_the_authors_write_it(tmp_path):
    example = Example(
        "g2r:0:2",
        ("👋", "да"),
        "hi!",
        candidates=(Candidate("hey", "generated", -2.25, 0.5), Candidate("hi!", "original", -1.5, 3.0)),
    )
    write_store_from_examples(tmp_path / "store", [example])
    assert export_g2r_release(CandidateStore(tmp_path / "store"), tmp_path / "x.jsonl") == 2
    assert (tmp_path / "x.jsonl").read_text(encoding="utf-8").split("\n") == [
        '{"context": ["👋", "да"], "response": "hi!", "source": "original", "score_infos": {"ll": -1.5, "mi": 3.0}}',
        '{"context": ["👋", "да"], "response": "hey", "source": "generated", "score_infos": {"ll": -2.25, "mi": 0.5}}',
        "",
    ]


def test_the_response_is_candidate_0_and_is_not_there_twice():
    listed = (Candidate("no", "generated"), Candidate("yes", "original"), Candidate("ok", "original"))
    example = Example("a:1:1", ("hi",), "yes", candidates=listed)
    assert [(r.candidate_id, r.response, r.source) for r in candidate_rows(example)] == [
        (0, "yes", "original"),
        (1, "no", "generated"),
        (2, "ok", "original"),
    ]
    both = Example(
        "a:1:1", ("hi",), "yes", candidates=(Candidate("yes", "generated", -1.0), Candidate("yes", "original", -2.0))
    )
    assert [(r.source, r.given_ll) for r in candidate_rows(both)] == [("original", -2.0), ("generated", -1.0)]
    assert [(r.source, r.given_ll) for r in candidate_rows(Example("a:1:1", ("hi",), "yes"))] == [("original", None)]


def test_a_masked_candidate_is_not_lost_silently(tmp_path):
    example = Example("a:1:1", ("hi",), "yes", candidates=(Candidate("no", "generated", positive=False),))
    with pytest.raises(StoreError, match=r"'a:1:1'.*'no'.*masked"):
        write_store_from_examples(tmp_path / "store", [example])


def test_scores_of_a_teacher_are_exported_in_the_order_of_the_rows(store, add_scores, tmp_path):
    add_scores(store, "blender")
    ll = store.teacher_scores("ll")
    export_g2r_release(store, tmp_path / "x.jsonl", {"ll": ll, "sum": store.teacher_scores("ll", normalise=False)})
    lines = read_release(tmp_path / "x.jsonl")
    assert [dict(line[3])["ll"] for line in lines] == ll.tolist()
    assert [dict(line[3])["sum"] for line in lines] == [-(r + 1.0) for r in range(13)]
    with pytest.raises(ValueError, match="2 scores 'll' for 13"):
        export_g2r_release(store, tmp_path / "y.jsonl", {"ll": np.zeros(2)})


def test_a_score_that_json_cannot_hold_leaves_no_file(tmp_path):
    example = Example("a:1:1", ("hi",), "yes", candidates=(Candidate("no", "generated", math.nan),))
    write_store_from_examples(tmp_path / "store", [example])
    with pytest.raises(StoreError, match="'a:1:1', candidate 1"):
        export_g2r_release(CandidateStore(tmp_path / "store"), tmp_path / "x.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_writing_again_is_free_and_other_candidates_are_refused(tmp_path, examples):
    first = write_store_from_examples(tmp_path / "store", examples, {"name": "blender"})
    assert write_store_from_examples(tmp_path / "store", examples, {"name": "blender"}) == first
    with pytest.raises(StoreError, match=r"imported_candidates_hash: store has .* this experiment has"):
        write_store_from_examples(
            tmp_path / "store", [*examples[:-1], Example(**_fields(examples[-1]))], {"name": "blender"}
        )


def _fields(example: Example) -> dict[str, object]:
    return {
        "id": example.id,
        "context": example.context,
        "response": example.response,
        "candidates": (Candidate("another", "generated"),),
    }


def test_no_examples_no_store(tmp_path):
    with pytest.raises(StoreError, match="no examples"):
        write_store_from_examples(tmp_path / "store", [])
    assert not (tmp_path / "store").exists()
