"""The two passes of a teacher over a data set, shard by shard, as rows of the candidate store.

1. *Generate* (data-level G2R): replies to every context by one or several decodings. What adds nothing is dropped: an
   empty reply, and one that the example has already; then what a filter objects to. Each drop is counted by its reason.
2. *Score* (model-level G2R): the likelihood of every candidate, originals included, given its context and by itself.

A shard depends on its own examples and the seed alone, so a run that was stopped goes on with the shards it lacks, and
ends with the rows that an uninterrupted one has, whichever process writes them.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from g2r_lightning.dialogue.text import text_key
from g2r_lightning.dialogue.types import GENERATED, Candidate, Example
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.filters import ReplyFilter, WrittenReply, first_objection
from g2r_lightning.store.convert import candidate_rows
from g2r_lightning.store.schema import CandidateRow, ScoreRow
from g2r_lightning.teacher.base import Teacher
from g2r_lightning.teacher.batching import stable_seed
from g2r_lightning.teacher.generator import Generator, WrittenText
from g2r_lightning.teacher.prior import Prior
from g2r_lightning.teacher.sampling import Sampling

EMPTY, DUPLICATE = "empty", "duplicate"


@dataclasses.dataclass(frozen=True)
class Writing:
    """What a generation pass is asked for.

    Args:
        decodings: how replies are drawn; each gives its ``num_replies``, in this order.
        filters: what drops replies; the first that objects is the one that is counted.
        seed: of the draws.
    """

    decodings: tuple[Sampling, ...] = (Sampling(),)
    filters: tuple[ReplyFilter, ...] = ()
    seed: int = 0

    def describe(self) -> dict[str, Any]:
        """Return what the manifest of a candidate store says of it."""
        return {
            "seed": self.seed,
            "decodings": [sampling.describe() for sampling in self.decodings],
            "filters": [filter_.describe() for filter_ in self.filters],
        }

    @property
    def num_replies(self) -> int:
        """Replies drawn for each context."""
        return sum(sampling.num_replies for sampling in self.decodings)


@dataclasses.dataclass
class GenerationReport:
    """What became of the replies, in counts.

    Args:
        examples: contexts answered.
        drawn: replies that the teacher wrote.
        kept: candidates added.
        tokens: tokens written, end tokens included; 0 where the teacher does not tell.
        dropped: reason -> how many: ``empty``, ``duplicate`` (exactly a text that the example has), or a filter's name.
    """

    examples: int = 0
    drawn: int = 0
    kept: int = 0
    tokens: int = 0
    dropped: Counter[str] = dataclasses.field(default_factory=Counter)

    def add(self, other: GenerationReport) -> None:
        """Add the counts of another report."""
        self.examples += other.examples
        self.drawn += other.drawn
        self.kept += other.kept
        self.tokens += other.tokens
        self.dropped.update(other.dropped)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts, for a manifest."""
        return {**dataclasses.asdict(self), "dropped": dict(sorted(self.dropped.items()))}

    @classmethod
    def from_dict(cls, counts: Mapping[str, Any]) -> GenerationReport:
        """Return what :meth:`as_dict` told of."""
        return cls(**{**counts, "dropped": Counter(counts["dropped"])})

    def summary(self) -> str:
        """Return the counts as one line."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.most_common()) or "none"
        return f"{self.kept} replies added to {self.examples} contexts ({self.drawn} written; dropped: {reasons})"


def check_writing(generator: Generator, writing: Writing) -> None:
    """Refuse what the generator cannot do, before a store is begun for it.

    Raises:
        ConfigError: a decoding does not fit the generator, or a filter needs likelihoods that it does not tell.
    """
    for sampling in writing.decodings:
        generator.check(sampling)
    _asked(generator, writing.filters)


def generate_rows(
    generator: Generator, examples: Sequence[Example], writing: Writing
) -> tuple[list[CandidateRow], GenerationReport]:
    """Write one shard: original responses, candidates that came with the data, and the new replies.

    Args:
        generator: writes the replies.
        examples: of the shard.
        writing: decodings, filters and seed.

    Returns:
        The rows of all examples, in order, and what became of the replies.

    Raises:
        ConfigError: a filter needs likelihoods and the generator has none.
    """
    written: list[list[WrittenText]] = [[] for _ in examples]
    for number, sampling in enumerate(writing.decodings):
        seed = writing.seed if number == 0 else stable_seed(writing.seed, [f"decoding {number}"])
        for own, replies in zip(written, generator.generate(examples, sampling, seed), strict=True):
            own.extend(replies)
    likelihoods = _likelihoods(generator, examples, written, writing.filters)
    report, rows = GenerationReport(), []
    for example, replies, totals in zip(examples, written, likelihoods, strict=True):
        kept = new_replies(example, replies, totals, writing.filters, report)
        added = tuple(Candidate(text, GENERATED) for text in kept)
        rows += candidate_rows(dataclasses.replace(example, candidates=(*example.candidates, *added)))
    return rows, report


def new_replies(
    example: Example,
    replies: Sequence[WrittenText],
    likelihoods: Sequence[float | None],
    filters: Sequence[ReplyFilter],
    report: GenerationReport,
) -> list[str]:
    """Return the replies that hold text, that the example does not have yet, and that no filter objects to, in order.

    Args:
        example: what they answer.
        replies: as they were written.
        likelihoods: of each, natural log, summed over tokens; ``None`` where no filter asks.
        filters: in order.
        report: is added to.
    """
    had = [example.response, *(candidate.response for candidate in example.candidates)]
    seen = {text_key(text) for text in had}
    kept: list[str] = []
    for reply, total in zip(replies, likelihoods, strict=True):
        earlier = (*(candidate.response for candidate in example.candidates), *kept)
        judged = WrittenReply(reply.text, example, earlier, reply.finished, total, reply.num_tokens)
        reason = _objection(judged, seen, filters)
        if reason is None:
            kept.append(reply.text)
            seen.add(text_key(reply.text))
        else:
            report.dropped[reason] += 1
    report.examples += 1
    report.drawn += len(replies)
    report.tokens += sum(reply.num_tokens for reply in replies)
    report.kept += len(kept)
    return kept


def _objection(reply: WrittenReply, seen: set[str], filters: Sequence[ReplyFilter]) -> str | None:
    key = text_key(reply.text)
    if not key or key in seen:
        return DUPLICATE if key else EMPTY
    return first_objection(filters, reply)


def _likelihoods(
    generator: Generator,
    examples: Sequence[Example],
    written: Sequence[Sequence[WrittenText]],
    filters: Sequence[ReplyFilter],
) -> list[list[float | None]]:
    """Return the likelihood of every reply under the teacher, where some filter asks for it."""
    teacher = _asked(generator, filters)
    if teacher is None:
        return [[None] * len(own) for own in written]
    with teacher.unwatched():
        scores = teacher.log_likelihood(examples, [[reply.text for reply in own] for own in written])
    return [[total for total, _ in own] for own in scores]


def _asked(generator: Generator, filters: Sequence[ReplyFilter]) -> Teacher | None:
    """Return the teacher that filters ask for likelihoods, ``None`` where none asks.

    Raises:
        ConfigError: one asks, and the generator tells none.
    """
    asking = [filter_.name for filter_ in filters if filter_.needs_likelihood]
    if not asking:
        return None
    if not isinstance(generator, Teacher):
        raise ConfigError(
            f"filters: {asking[0]} needs the likelihood of each reply, which a {type(generator).__name__} does not "
            "tell; leave the filter out, or take a teacher that runs here"
        )
    return generator


def score_rows(
    teacher: Teacher,
    members: Sequence[tuple[Example, Sequence[str]]],
    prior: Prior | None,
    known: Sequence[Sequence[tuple[float, int]]] | None = None,
) -> list[ScoreRow]:
    """Score one shard, one row a candidate, in the order given.

    Args:
        teacher: scores.
        members: each example with its candidates' texts in the store's order.
        prior: estimates log P(r); ``None`` leaves it out.
        known: log-likelihood and token count of each candidate given its context, where this teacher has told them.

    Raises:
        G2RError: a likelihood is not finite; names the example and the candidate.
    """
    given = known or teacher.log_likelihood([example for example, _ in members], [texts for _, texts in members])
    flat = [text for _, texts in members for text in texts]
    with teacher.unwatched():
        alone = iter(prior.log_likelihood(teacher, flat)) if prior is not None else None
    rows: list[ScoreRow] = []
    for (example, _), scores in zip(members, given, strict=True):
        for number, (total, tokens) in enumerate(scores):
            by_itself = next(alone) if alone is not None else (None, None)
            rows.append(_checked(ScoreRow(example.id, number, total, tokens, *by_itself), teacher))
    return rows


def _checked(row: ScoreRow, teacher: Teacher) -> ScoreRow:
    for value in (row.log_likelihood, row.prior_log_likelihood):
        if value is not None and not math.isfinite(value):
            raise G2RError(
                f"example {row.example_id}, candidate {row.candidate_id}: {teacher.name_or_path} gives a "
                f"log-likelihood of {value}; try teacher.init_args.dtype=float32, or another teacher"
            )
    return row
