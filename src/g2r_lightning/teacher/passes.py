"""The two passes of a teacher over a data set, shard by shard, as rows of the candidate store.

1. *Generate* (data-level G2R): m replies to every context. What adds nothing is dropped and counted: an empty reply,
   and one that equals the original response, a candidate that came with the data, or an earlier reply.
2. *Score* (model-level G2R): the likelihood of every candidate, originals included, given its context and by itself.

A shard depends on its own examples and the seed alone, so a run that was stopped goes on with the shards it lacks, and
ends with the rows that an uninterrupted one has.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

from g2r_lightning.dialogue.text import text_key
from g2r_lightning.dialogue.types import GENERATED, Candidate, Example
from g2r_lightning.errors import G2RError
from g2r_lightning.store.convert import candidate_rows
from g2r_lightning.store.schema import CandidateRow, ScoreRow
from g2r_lightning.teacher.base import Teacher
from g2r_lightning.teacher.prior import Prior
from g2r_lightning.teacher.sampling import Sampling


@dataclasses.dataclass
class GenerationReport:
    """What became of the replies, in counts.

    Args:
        examples: contexts answered.
        drawn: replies that the teacher wrote.
        empty: of those, dropped because they hold no text.
        duplicates: dropped because the example has that text already.
        kept: candidates added.
    """

    examples: int = 0
    drawn: int = 0
    empty: int = 0
    duplicates: int = 0
    kept: int = 0

    def summary(self) -> str:
        """Return the counts as one line."""
        return (
            f"{self.kept} replies added to {self.examples} contexts "
            f"({self.drawn} written: {self.duplicates} duplicates and {self.empty} empty ones dropped)"
        )


def generate_shards(
    teacher: Teacher,
    shards: Iterable[tuple[int, Sequence[Example]]],
    sampling: Sampling,
    seed: int = 0,
    report: GenerationReport | None = None,
) -> Iterator[tuple[int, list[CandidateRow]]]:
    """Yield each shard's candidates: original responses, candidates that came with the data, the teacher's replies.

    Args:
        teacher: writes the replies.
        shards: shard number and its examples.
        sampling: how replies are drawn.
        seed: of the draws.
        report: is added to as shards are made.
    """
    counts = report if report is not None else GenerationReport()
    for index, examples in shards:
        replies = teacher.generate(examples, sampling, seed)
        rows: list[CandidateRow] = []
        for example, texts in zip(examples, replies, strict=True):
            kept = new_replies(example, [reply.text for reply in texts], counts)
            added = tuple(Candidate(text, GENERATED) for text in kept)
            rows += candidate_rows(dataclasses.replace(example, candidates=(*example.candidates, *added)))
        yield index, rows


def new_replies(example: Example, texts: Sequence[str], report: GenerationReport) -> list[str]:
    """Return the replies that hold text and that the example does not have yet, in order; count the others."""
    seen = {text_key(text) for text in (example.response, *(candidate.response for candidate in example.candidates))}
    kept: list[str] = []
    for text in texts:
        key = text_key(text)
        if not key:
            report.empty += 1
        elif key in seen:
            report.duplicates += 1
        else:
            kept.append(text)
            seen.add(key)
    report.examples += 1
    report.drawn += len(texts)
    report.kept += len(kept)
    return kept


def score_shards(
    teacher: Teacher,
    shards: Iterable[tuple[int, Sequence[tuple[Example, Sequence[str]]]]],
    prior: Prior | None,
) -> Iterator[tuple[int, list[ScoreRow]]]:
    """Yield each shard's scores, one row a candidate, in the order given.

    Args:
        teacher: scores.
        shards: shard number and, for each of its examples, the candidates' texts in the store's order.
        prior: estimates log P(r); ``None`` leaves it out.

    Raises:
        G2RError: a likelihood is not finite; names the example and the candidate.
    """
    for index, members in shards:
        given = teacher.log_likelihood([example for example, _ in members], [texts for _, texts in members])
        flat = [text for _, texts in members for text in texts]
        alone = iter(prior.log_likelihood(teacher, flat)) if prior is not None else None
        rows: list[ScoreRow] = []
        for (example, _), scores in zip(members, given, strict=True):
            for number, (total, tokens) in enumerate(scores):
                by_itself = next(alone) if alone is not None else (None, None)
                rows.append(_checked(ScoreRow(example.id, number, total, tokens, *by_itself), teacher))
        yield index, rows


def _checked(row: ScoreRow, teacher: Teacher) -> ScoreRow:
    for value in (row.log_likelihood, row.prior_log_likelihood):
        if value is not None and not math.isfinite(value):
            raise G2RError(
                f"example {row.example_id}, candidate {row.candidate_id}: {teacher.name_or_path} gives a "
                f"log-likelihood of {value}; try teacher.init_args.dtype=float32, or another teacher"
            )
    return row
