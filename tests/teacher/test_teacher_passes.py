from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from g2r_lightning.dialogue import Candidate, Example
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.filters import ReplyFilter, WrittenReply
from g2r_lightning.store import CandidateStore
from g2r_lightning.teacher import GenerationReport, Prior, Sampling, Writing, generate_rows, score_rows
from g2r_lightning.teacher.generator import WrittenText


class Parrot:
    """A teacher whose replies and likelihoods are known."""

    name_or_path = "parrot"
    unwatched = staticmethod(nullcontext)

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
    rows, report = generate_rows(parrot, [given], Writing())
    assert [(row.candidate_id, row.response, row.source) for row in rows] == [
        (0, "i am fine, thanks.", "original"),
        (1, "given reply", "model x"),
        (2, "new", "generated"),
        (3, "also new", "generated"),
    ]
    assert (report.examples, report.drawn, report.kept) == (1, 7, 2)
    assert report.dropped == {"empty": 2, "duplicate": 3}
    assert "2 replies added to 1 contexts (7 written; dropped: 3 duplicate, 2 empty)" in report.summary()
    assert GenerationReport.from_dict(json.loads(json.dumps(report.as_dict()))) == report


class Words(ReplyFilter):
    """Drop replies that contain a word, and note what they were shown."""

    def __init__(self, word: str) -> None:
        self.word, self.seen = word, []

    def drops(self, reply: WrittenReply) -> bool:
        self.seen.append(reply)
        return self.word in reply.text.split()


class Unlikely(ReplyFilter):
    needs_likelihood = True

    def drops(self, reply: WrittenReply) -> bool:
        return reply.log_likelihood < -6.0


def test_filters_see_what_was_kept_before_and_the_first_objection_counts(examples: list[Example]) -> None:
    parrot: Any = Parrot(["a b", "b c", "c d"])
    first, second = Words("a"), Words("b")
    rows, report = generate_rows(parrot, examples[:1], Writing(filters=(first, second)))
    assert [row.response for row in rows][1:] == ["c d"]
    assert report.dropped == {"Words": 2}
    assert [reply.text for reply in second.seen] == ["b c", "c d"]
    assert [reply.earlier for reply in first.seen] == [(), (), ()]
    rows, _ = generate_rows(parrot, examples[:1], Writing(filters=(Words("c"), last := Words("zz"))))
    assert [reply.earlier for reply in last.seen] == [()]
    assert Writing((Sampling(), Sampling(2)), (first,)).num_replies == 7


def test_a_filter_by_likelihood_asks_the_teacher_or_refuses_a_mere_writer(
    examples: list[Example], teacher_of: Callable[..., Any]
) -> None:
    teacher, writing = teacher_of("gpt2"), Writing((Sampling(4, max_tokens=6),), (Unlikely(),), seed=1)
    rows, report = generate_rows(teacher, examples, writing)
    kept = [[row.response for row in rows if row.example_id == e.id and row.source == "generated"] for e in examples]
    scores = teacher.log_likelihood(examples, kept)
    assert all(total >= -6.0 for own in scores for total, _ in own)
    assert report.dropped["Unlikely"] > 0
    with pytest.raises(ConfigError, match="Unlikely needs the likelihood of each reply, which a Parrot does not"):
        generate_rows(Parrot(["a"]), examples, Writing(filters=(Unlikely(),)))  # type: ignore[arg-type]


def test_several_decodings_draw_different_numbers(teacher_of: Callable[..., Any], examples: list[Example]) -> None:
    teacher, one = teacher_of("gpt2"), Sampling(2, max_tokens=8, top_p=1.0)
    rows, report = generate_rows(teacher, examples, Writing((one, one, Sampling(1, "beam", num_beams=3, max_tokens=8))))
    assert report.drawn == 15
    alone, _ = generate_rows(teacher, examples, Writing((one,)))
    for example in examples:
        mixed, plain = ([r.response for r in some if r.example_id == example.id] for some in (rows, alone))
        assert mixed[: len(plain)] == plain
        assert len(mixed) > len(plain)


def test_scores_stand_in_the_order_given(examples: list[Example]) -> None:
    parrot: Any = Parrot([])
    members = [(examples[0], ["a", "bb"]), (examples[1], []), (examples[2], ["a"])]
    rows = score_rows(parrot, members, Prior())
    assert [(row.example_id, row.candidate_id, row.log_likelihood, row.num_tokens) for row in rows] == [
        ("t:a:1", 0, -2.0, 1),
        ("t:a:1", 1, -4.0, 2),
        ("t:b:2", 0, -2.0, 1),
    ]
    assert [(row.prior_log_likelihood, row.prior_num_tokens) for row in rows] == [(-3.0, 1), (-5.0, 2), (-3.0, 1)]
    rows = score_rows(parrot, members, None)
    assert rows[0].prior_log_likelihood is None
    assert rows[0].prior_num_tokens is None


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_likelihood_that_is_no_number_names_its_example(value: float, examples: list[Example]) -> None:
    parrot: Any = Parrot([], value)
    with pytest.raises(G2RError, match=r"example t:a:1, candidate 0: parrot gives a log-likelihood of"):
        score_rows(parrot, [(examples[0], ["a"])], None)


@pytest.mark.parametrize("family", ["bert2bert", "llama_chat"])
def test_a_shard_depends_on_itself_alone(family: str, teacher_of: Callable[..., Any], examples: list[Example]) -> None:
    teacher, writing = teacher_of(family), Writing((Sampling(num_replies=2, max_tokens=6),), seed=1)
    both, _ = generate_rows(teacher, examples, writing)
    assert [row for row in both if row.example_id == "t:b:2"] == generate_rows(teacher, examples[2:], writing)[0]
    assert generate_rows(teacher, examples, replace(writing, seed=2))[0] != both


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

    teacher, writing = teacher_of("bert2bert"), Writing((Sampling(num_replies=2, max_tokens=6),))
    plan = candidate_plan(
        describe_data(examples), teacher.describe(), teacher.describe_template(), writing.describe(), 2
    )
    writer = ShardWriter(candidates_folder(tmp_path), CANDIDATE_SCHEMA, plan)
    writer.begin()
    for index in writer.pending_shards():
        rows, report = generate_rows(teacher, [examples[i] for i in writer.shard_range(index)], writing)
        writer.write(index, rows, report.as_dict())
    assert sum(notes["drawn"] for notes in writer.notes()) == 6
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
    for index, part in enumerate((members[:2], members[2:])):
        scores.write(index, score_rows(teacher, part, Prior()))
    assert scores.finish().num_rows == made.num_rows == sum(len(held.candidates) for held in stored)
