from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from g2r_lightning.dialogue import Candidate, Example
from g2r_lightning.errors import G2RError
from g2r_lightning.store import CandidateStore
from g2r_lightning.teacher import GenerationReport, Prior, Sampling, generate_shards, score_shards
from g2r_lightning.teacher.generator import WrittenText


class Parrot:
    """A teacher whose replies and likelihoods are known."""

    name_or_path = "parrot"

    def __init__(self, replies: list[str], value: float = -2.0) -> None:
        self.replies, self.value = replies, value

    def generate(self, contexts: Sequence[Example], sampling: Sampling, seed: int) -> list[list[WrittenText]]:
        return [[WrittenText(text) for text in self.replies] for _ in contexts]

    def log_likelihood(self, contexts: Any, candidates: Sequence[Sequence[str]]) -> list[list[tuple[float, int]]]:
        offset = 0.0 if contexts is not None else -1.0
        return [[(self.value * len(text) + offset, len(text)) for text in texts] for texts in candidates]


def test_what_adds_nothing_is_dropped_and_counted(examples: list[Example]) -> None:
    given = replace(examples[0], candidates=(Candidate("given reply", "model x", given_ll=-1.0),))
    parrot: Any = Parrot(["new", "", "  ", "i am  fine, thanks.", "new ", "given reply", "also new"])
    report = GenerationReport()
    [(index, rows)] = generate_shards(parrot, [(4, [given])], Sampling(), report=report)
    assert index == 4
    assert [(row.candidate_id, row.response, row.source) for row in rows] == [
        (0, "i am fine, thanks.", "original"),
        (1, "given reply", "model x"),
        (2, "new", "generated"),
        (3, "also new", "generated"),
    ]
    assert (report.examples, report.drawn, report.empty, report.duplicates, report.kept) == (1, 7, 2, 3, 2)
    assert "2 replies added to 1 contexts (7 written: 3 duplicates and 2 empty" in report.summary()


def test_scores_stand_in_the_order_given(examples: list[Example]) -> None:
    parrot: Any = Parrot([])
    members = [(examples[0], ["a", "bb"]), (examples[1], []), (examples[2], ["a"])]
    [(index, rows)] = score_shards(parrot, [(0, members)], Prior())
    assert index == 0
    assert [(row.example_id, row.candidate_id, row.log_likelihood, row.num_tokens) for row in rows] == [
        ("t:a:1", 0, -2.0, 1),
        ("t:a:1", 1, -4.0, 2),
        ("t:b:2", 0, -2.0, 1),
    ]
    assert [(row.prior_log_likelihood, row.prior_num_tokens) for row in rows] == [(-3.0, 1), (-5.0, 2), (-3.0, 1)]
    [(_, rows)] = score_shards(parrot, [(0, members)], None)
    assert rows[0].prior_log_likelihood is None
    assert rows[0].prior_num_tokens is None


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_likelihood_that_is_no_number_names_its_example(value: float, examples: list[Example]) -> None:
    parrot: Any = Parrot([], value)
    with pytest.raises(G2RError, match=r"example t:a:1, candidate 0: parrot gives a log-likelihood of"):
        list(score_shards(parrot, [(0, [(examples[0], ["a"])])], None))


@pytest.mark.parametrize("family", ["bert2bert", "llama_chat"])
def test_a_shard_depends_on_itself_alone(family: str, teacher_of: Callable[..., Any], examples: list[Example]) -> None:
    teacher, sampling = teacher_of(family), Sampling(num_replies=2, max_tokens=6)
    shards = [(0, examples[:2]), (1, examples[2:])]
    both = dict(generate_shards(teacher, shards, sampling, seed=1))
    assert dict(generate_shards(teacher, shards[1:], sampling, seed=1)) == {1: both[1]}
    assert dict(generate_shards(teacher, shards, sampling, seed=2)) != both


def test_rows_fill_a_store(teacher_of: Callable[..., Any], examples: list[Example], tmp_path: Any) -> None:
    """What the passes yield is what the store's writer takes, scores and manifests included."""
    from g2r_lightning.store import (
        CANDIDATE_SCHEMA,
        SCORE_SCHEMA,
        ShardWriter,
        candidate_plan,
        candidates_folder,
        describe_data,
        score_plan,
        scores_folder,
    )

    teacher, sampling = teacher_of("bert2bert"), Sampling(num_replies=2, max_tokens=6)
    plan = candidate_plan(
        describe_data(examples), teacher.describe(), teacher.describe_template(), sampling.describe(), 2
    )
    writer = ShardWriter(candidates_folder(tmp_path), CANDIDATE_SCHEMA, plan)
    writer.begin()
    shards = [(index, [examples[i] for i in writer.shard_range(index)]) for index in writer.pending_shards()]
    for index, rows in generate_shards(teacher, shards, sampling):
        writer.write(index, rows)
    made = writer.finish()
    scores = ShardWriter(
        scores_folder(tmp_path, "t"),
        SCORE_SCHEMA,
        score_plan(made, teacher.describe(), teacher.describe_template(), "empty"),
    )
    scores.begin()
    stored = list(CandidateStore(tmp_path).examples())
    members = [
        (example, [row.response for row in held.candidates]) for example, held in zip(examples, stored, strict=True)
    ]
    for index, score_rows in score_shards(teacher, [(0, members[:2]), (1, members[2:])], Prior()):
        scores.write(index, score_rows)
    assert scores.finish().num_rows == made.num_rows == sum(len(held.candidates) for held in stored)
