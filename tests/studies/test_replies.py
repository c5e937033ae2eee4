"""Contexts and replies from every form of file that the commands write or users have."""

from __future__ import annotations

import json
import re
import shutil

import pyarrow.parquet as pq
import pytest

from g2r_lightning.errors import DataError, G2RError
from g2r_lightning.metrics import reply_diversity
from g2r_lightning.paths import resolve_path
from g2r_lightning.store import CandidateStore
from g2r_lightning.studies.replies import Answered, read_replies, read_run
from g2r_lightning.studies.report.making import make_report


def test_forms_of_a_line(tmp_path):
    path = tmp_path / "replies.jsonl"
    lines = [
        {"context": ["hi", "hello"], "response": "how are you?", "extra": 1},
        {"context": ["hi", "hello"], "replies": [{"text": "a", "source": "original"}, {"text": "b", "source": "llm"}]},
        {"context": ["hi there"], "replies": ["a", "b"], "id": "set:d7:3"},
        ["one", "two", "three"],
        {"context": ["x"], "response": "y", "dialogue_id": "mine"},
    ]  # fmt: skip
    path.write_text("\n\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    assert read_replies(path) == [
        Answered(("hi", "hello"), ("how are you?",), "hi", (), None, 1),
        Answered(("hi", "hello"), ("a", "b"), "hi", ("original", "llm"), None, 3),
        Answered(("hi there",), ("a", "b"), "set:d7", (), None, 5),
        Answered(("one", "two"), ("three",), "one", (), None, 7),
        Answered(("x",), ("y",), "mine", (), None, 9),
    ]
    assert read_replies(path)[0].record == lines[0]
    assert read_replies(path)[3].record == {"context": ["one", "two"], "replies": ["three"]}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "the file is empty"),
        ("{", ":1: broken JSON"),
        ('"text"', ":1: a line must be an object"),
        ('{"context": ["a"]}', ":1: it has neither"),
        ('{"context": "a", "response": "b"}', '"context" must be a list'),
        ('{"context": [], "response": "b"}', "the context is empty"),
        ('{"context": ["a", " "], "response": "b"}', "an utterance of it is blank"),
        ('{"context": ["a"], "response": ""}', "there is no reply, or one is blank"),
        ('{"context": ["a"], "replies": []}', "there is no reply, or one is blank"),
        ('{"context": ["a"], "replies": [1]}', "a reply must be an object"),
        ('{"context": ["a"], "replies": [{"score": 1}]}', "\"text\" must be a string"),
        ('["only one"]', "the context is empty"),
        ('{"context": ["a"], "response": "\\ud800"}', "half of a character"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path, line, complaint):
    path = tmp_path / "replies.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(complaint)):
        read_replies(path)


def test_a_candidate_store_gives_every_candidate_with_its_source():
    found = read_replies("package:sample/store")
    store = list(CandidateStore(resolve_path("package:sample/store")).examples())
    assert len(found) == len(store)
    assert found[5].replies == tuple(candidate.response for candidate in store[5].candidates)
    assert found[5].sources[0] == "original"
    assert set(found[5].sources[1:]) == {"generated"}
    assert found[5].dialogue == store[5].example_id.rpartition(":")[0]


def test_a_run_gives_its_replies_and_the_human_ones(fitted):
    folder = fitted.parent / "runs/first"
    one, two = read_run(folder)
    assert (one.name, two.name) == ("one", "two")
    rows = pq.read_table(folder / "examples/test-one.parquet").to_pylist()
    assert [a.replies for a in one.replies] == [(row["reply"],) for row in rows]
    assert [a.replies for a in one.human] == [(row["response"],) for row in rows]
    assert one.example_ids == [row["example_id"] for row in rows]
    assert one.human[0].sources == ("human",)
    assert read_replies(folder) == one.replies + two.replies
    assert [found.name for found in read_run(folder, "validation")] == ["val"]
    with pytest.raises(G2RError, match="untrained-"):
        read_run(folder, "untrained")


def test_another_checkpoint_s_test_is_no_set_of_the_run(fitted, tmp_path):
    """`test --ckpt_path=last` and `test --encoder=openvino` leave files that begin alike."""
    run = tmp_path / "first"
    shutil.copytree(fitted.parent / "runs/first", run, ignore=shutil.ignore_patterns("checkpoints", "index", "events*"))
    before = read_run(run)
    for path in sorted((run / "examples").glob("test-*.parquet")):
        shutil.copy(path, path.with_name(path.name.replace("test-", "test-last-")))
    assert read_run(run) == before
    table = {one.labels["system"]: one.cells for one in make_report([tmp_path]).tables["main-all"].rows}
    texts = [one.replies[0] for each in before for one in each.human]
    assert table["human responses"]["distinct_2"].value == pytest.approx(reply_diversity(texts)["distinct_2"])
    shutil.copy(run / "results/test.json", run / "results/test-last.json")
    assert [one.name for one in read_run(run, "test-last")] == [one.name for one in before]


def test_a_damaged_file_of_examples_is_named(tmp_path):
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples/test-x.parquet").write_bytes(b"no")
    with pytest.raises(G2RError, match=r"test-x.parquet: cannot be read"):
        read_run(tmp_path)
