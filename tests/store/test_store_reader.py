from __future__ import annotations

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest

from g2r_lightning.dialogue import Candidate
from g2r_lightning.errors import StoreError
from g2r_lightning.store import (
    CANDIDATE_SCHEMA,
    SCORE_SCHEMA,
    CandidateStore,
    ScoreRow,
    ShardWriter,
    candidate_rows,
    candidates_folder,
    describe_data,
    score_plan,
    scores_folder,
    write_store_from_examples,
)
from g2r_lightning.store.json_file import write_json


def test_examples_come_back_in_order_with_their_candidates(store, examples):
    stored = list(store.examples())
    assert [example.example_id for example in stored] == [example.id for example in examples]
    for example, original in zip(stored, examples, strict=True):
        assert list(example.candidates) == candidate_rows(original)
        assert all(candidate.context is example.context for candidate in example.candidates)
    assert [e.example_id for e in store.shard(1)] == ["toy:3:2", "toy:4:2", "toy:5:2"]


def test_table_and_rows_agree(store, examples):
    table = store.table()
    assert table.schema.equals(CANDIDATE_SCHEMA)
    assert table.num_rows == store.candidates.num_rows == 13
    assert list(store.rows) == [example.id for example in examples]
    for example_id, rows in store.rows.items():
        part = table.slice(rows.start, len(rows))
        assert set(part["example_id"].to_pylist()) == {example_id}
        assert part["candidate_id"].to_pylist() == list(range(len(rows)))
    assert store.table(["response"]).column_names == ["response"]


def test_scores_by_position_and_by_key(store, add_scores):
    add_scores(
        store, "blender", lambda r, row: dataclasses.replace(row, prior_log_likelihood=-2.0 * r, prior_num_tokens=4)
    )
    scores = store.scores("blender")
    assert len(scores) == 13
    assert list(scores) == [(row["example_id"], row["candidate_id"]) for row in store.table().to_pylist()]
    np.testing.assert_array_equal(scores.log_likelihood, -np.arange(1.0, 14.0))
    assert scores["toy:2:2", 1] == ScoreRow("toy:2:2", 1, -5.0, 6, -8.0, 4)  # rows 0; 1 2; 3 4 5
    for key in [("toy:2:2", 3), ("toy:2:2", -1), ("other", 0)]:
        assert key not in scores
    np.testing.assert_allclose(store.teacher_scores("ll"), [-(r + 1) / (r + 2) for r in range(13)])
    np.testing.assert_allclose(store.teacher_scores("mi", normalise=False), [-(r + 1) + 2.0 * r for r in range(13)])
    np.testing.assert_allclose(store.teacher_scores("mi"), [-(r + 1) / (r + 2) + r / 2 for r in range(13)])


def test_a_score_set_without_prior_serves_ll_alone(store, add_scores):
    add_scores(store, "plain")
    assert store.scores().prior_log_likelihood is None
    assert store.scores()["toy:0:2", 0] == ScoreRow("toy:0:2", 0, -1.0, 2)
    assert store.teacher_scores("ll", normalise=False)[0] == -1.0
    with pytest.raises(StoreError, match=r"--scoring\.prior=empty"):
        store.teacher_scores("mi")


def test_a_prior_with_a_hole_names_the_candidate(store, add_scores):
    def change(r, row):
        return row if r == 4 else dataclasses.replace(row, prior_log_likelihood=-1.0, prior_num_tokens=2)

    add_scores(store, "holes", change)
    assert store.scores()["toy:2:2", 1].prior_num_tokens is None
    with pytest.raises(StoreError, match="prior_log_likelihood is nan for example 'toy:2:2', candidate 1"):
        store.teacher_scores("mi")


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_scores_that_are_no_numbers_name_example_and_candidate(store, add_scores, bad):
    add_scores(store, "broken", lambda r, row: dataclasses.replace(row, log_likelihood=bad) if r == 5 else row)
    with pytest.raises(StoreError, match=f"{bad} for example 'toy:2:2', candidate 2"):
        store.teacher_scores("ll")


def test_which_score_set_is_meant(store, add_scores):
    with pytest.raises(StoreError, match="g2r_lightning score"):
        store.teacher_scores("ll")
    add_scores(store, "one")
    assert store.score_names() == ["one"]
    assert store.score_manifest().candidates_hash == store.candidates.content_hash()
    add_scores(store, "two")
    assert store.score_names() == ["one", "two"]
    with pytest.raises(StoreError, match="one, two"):
        store.scores()
    assert len(store.scores("two")) == 13
    with pytest.raises(StoreError, match=r"three.*no such score set.*g2r_lightning score"):
        store.scores("three")
    with pytest.raises(StoreError, match="without slashes"):
        store.scores("../candidates")


def test_given_scores_are_used_as_they_came(tmp_path, examples):
    numbers = iter(range(100))

    def candidate(text, source):
        number = next(numbers)
        return Candidate(text, source, given_ll=-0.5 * number, given_mi=float(number) if number != 7 else math.nan)

    scored = [
        dataclasses.replace(
            example,
            candidates=(
                candidate(example.response, "original"),
                *(candidate(c.response, c.source) for c in example.candidates),
            ),
        )
        for example in examples
    ]
    write_store_from_examples(tmp_path / "a", scored)
    store = CandidateStore(tmp_path / "a")
    np.testing.assert_array_equal(store.teacher_scores("given_ll"), -0.5 * np.arange(13))
    with pytest.raises(StoreError, match="given_mi is nan for example 'toy:4:2', candidate 0"):
        store.teacher_scores("given_mi")


def test_missing_given_scores_say_what_works_without(store):
    with pytest.raises(StoreError, match=r"given_ll is missing for 13 of 13.*'toy:0:2', candidate 0.*alpha: 0"):
        store.teacher_scores("given_ll")


def test_a_missing_store_names_the_command(tmp_path):
    with pytest.raises(StoreError, match=r"nowhere.*python -m g2r_lightning generate -c <experiment>"):
        CandidateStore(tmp_path / "nowhere")
    (tmp_path / "candidates").mkdir()
    with pytest.raises(StoreError, match=r"manifest.json.*generate"):
        CandidateStore(tmp_path)


def test_an_unfinished_store_names_the_command_that_continues(tmp_path, plan, examples):
    writer = ShardWriter(candidates_folder(tmp_path), CANDIDATE_SCHEMA, plan)
    writer.begin()
    writer.write(0, [row for example in examples[:3] for row in candidate_rows(example)])
    with pytest.raises(StoreError, match=r"unfinished.*1 shards so far.*generate -c <experiment>. continues"):
        CandidateStore(tmp_path)


def test_an_unfinished_score_set_is_not_offered(store):
    ShardWriter(scores_folder(store.path, "half"), SCORE_SCHEMA, score_plan(store.candidates, {})).begin()
    assert store.score_names() == []
    with pytest.raises(StoreError, match=r"half: unfinished.*g2r_lightning score"):
        store.scores("half")


def test_a_truncated_or_missing_shard_is_named(store):
    shard = candidates_folder(store.path) / "part-00001.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(
        StoreError, match=rf"part-00001\.parquet: {len(whole) - 1} bytes, but {len(whole)} were written"
    ):
        CandidateStore(store.path)
    shard.unlink()
    with pytest.raises(StoreError, match=r"part-00001\.parquet: missing"):
        CandidateStore(store.path)
    with pytest.raises(StoreError, match=r"part-00001\.parquet"):
        list(store.examples())


def test_verify_finds_a_changed_byte_that_opening_does_not(store, add_scores):
    add_scores(store, "blender")
    store.verify()
    for shard in (
        candidates_folder(store.path) / "part-00002.parquet",
        scores_folder(store.path, "blender") / "part-00000.parquet",
    ):
        whole = shard.read_bytes()
        shard.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
        with pytest.raises(StoreError, match=rf"{shard.name}.*again") as caught:
            CandidateStore(store.path).verify()
        assert str(shard) in str(caught.value)
        shard.write_bytes(whole)
    store.verify()


def test_a_store_made_for_other_data_is_refused_with_both_values(store, examples):
    store.check_data(describe_data(reversed(examples)))
    other = describe_data(examples[:-1])
    with pytest.raises(StoreError) as caught:
        store.check_data(other)
    message = str(caught.value)
    assert store.candidates.data_hash in message
    assert other.data_hash in message
    assert "num_examples: store has 7, this experiment has 6" in message
    assert "generate" in message


def test_scores_of_other_candidates_are_refused(tmp_path, store, examples, add_scores):
    add_scores(store, "blender")
    examples[0] = dataclasses.replace(examples[0], candidates=(Candidate("one more", "generated"),))
    write_store_from_examples(tmp_path / "b", examples, examples_per_shard=3)
    other = CandidateStore(tmp_path / "b")
    shutil.copytree(scores_folder(store.path, "blender"), scores_folder(other.path, "blender"))
    with pytest.raises(StoreError, match="other candidates") as caught:
        other.scores("blender")
    assert store.candidates.content_hash() in str(caught.value)
    assert other.candidates.content_hash() in str(caught.value)


def test_scores_whose_rows_are_not_the_candidates_are_refused(store):
    writer = ShardWriter(scores_folder(store.path, "short"), SCORE_SCHEMA, score_plan(store.candidates, {}))
    writer.begin()
    for index in range(3):
        writer.write(index, [ScoreRow(example.example_id, 0, -1.0, 1) for example in store.shard(index)])
    writer.finish()
    with pytest.raises(StoreError, match="not those of the candidates"):
        store.scores("short")


def test_a_store_of_another_schema_version_is_refused(store):
    path = candidates_folder(store.path) / "manifest.json"
    write_json(path, {**json.loads(path.read_text()), "schema_version": 2})
    with pytest.raises(StoreError, match="schema version 2"):
        CandidateStore(store.path)
