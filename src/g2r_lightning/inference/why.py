"""Why this reply: which training contexts it was written for, and which of all are nearest to the live one.

A retriever says what somebody said elsewhere, so its reasons are the contexts it has seen: those that had the reply as
a candidate, nearest first, show where it comes from; the nearest of all show what the student took the context for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from g2r_lightning.dialogue import Example
from g2r_lightning.inference.chat import Asked
from g2r_lightning.inference.contexts import TrainingContexts, context_vectors, reply_key
from g2r_lightning.inference.deployment import DeployedEncoder
from g2r_lightning.inference.responder import Reply
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.text import StudentText

MOST_ENCODED = 64  # contexts of one reply that have no vector yet are encoded when they are asked for


class Likelihood(Protocol):
    """What scores a reply now, as :class:`g2r_lightning.teacher.Teacher` does."""

    def log_likelihood(
        self, contexts: Sequence[Example] | None, candidates: Sequence[Sequence[str]]
    ) -> list[list[tuple[float, int]]]:
        """Return (summed natural-log likelihood, tokens) of each context's candidates."""


@dataclass(frozen=True, slots=True)
class TeacherView:
    """What a teacher thinks of a reply in the live context.

    Args:
        score: in nats.
        what: which score, and whose.
    """

    score: float
    what: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training context.

    Args:
        example_id: ``dataset:dialogue:turn``.
        lines: as the student reads them.
        similarity: cosine of its vector with the live context's; ``None`` where it has no vector.
        response: what was answered there.
        source: who wrote that.
        teacher_score: of that answer there; ``None`` where there is none.
    """

    example_id: str
    lines: tuple[str, ...]
    similarity: float | None
    response: str
    source: str
    teacher_score: float | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a reply was given.

    Args:
        reply: with the student's score and its source.
        teacher: the teacher's view of it here, if there is one.
        written_for: contexts that had it as a candidate, nearest first.
        occurrences: how many contexts had it.
        nearest: nearest contexts of all, with their original responses.
        compared: how many contexts were compared.
        known: how many training contexts there are.
    """

    reply: Reply
    teacher: TeacherView | None
    written_for: tuple[Neighbour, ...]
    occurrences: int
    nearest: tuple[Neighbour, ...]
    compared: int
    known: int


def explain(
    asked: Asked,
    contexts: TrainingContexts,
    encoder: StudentEncoder | DeployedEncoder,
    text: StudentText,
    count: int = 3,
    teacher: Likelihood | None = None,
    teacher_name: str = "the teacher",
) -> Explanation:
    """Trace a reply.

    Args:
        asked: the reply and the context it answers.
        contexts: of training.
        encoder: the student, or an export of it.
        text: its way with texts.
        count: contexts of either kind.
        teacher: scores the reply now where its score set does not hold it.
        teacher_name: what it is called in the answer.
    """
    live = Example("live:0:0", asked.context, "", persona=asked.persona)
    lines = text.context_lines(live)
    vector = context_vectors(encoder, text, [lines])[0]
    similarity = contexts.similarities(vector)
    own = contexts.rows_with(reply_key(text, asked.reply.text))
    order = np.argsort(-similarity, kind="stable")[:count]
    return Explanation(
        reply=asked.reply,
        teacher=_scored(contexts, own, lines) or _judged(teacher, live, asked.reply, teacher_name),
        written_for=tuple(_written_for(contexts, own, similarity, vector, encoder, text)[:count]),
        occurrences=len(own),
        nearest=tuple(
            _neighbour(contexts, int(row), float(similarity[row]), contexts.first_candidate(int(row))) for row in order
        ),
        compared=len(similarity),
        known=contexts.contexts.num_rows,
    )


def _scored(contexts: TrainingContexts, own: npt.NDArray[np.int64], lines: list[str]) -> TeacherView | None:
    """Return the score that the reply got in this very context."""
    for place in own.tolist():
        found = contexts.candidate(place)
        if found["teacher_score"] is not None and contexts.lines(found["row"]) == lines:
            return TeacherView(found["teacher_score"], contexts.teacher_score or "the teacher's score")
    return None


def _judged(teacher: Likelihood | None, live: Example, reply: Reply, name: str) -> TeacherView | None:
    if teacher is None:
        return None
    (((total, tokens),),) = teacher.log_likelihood([live], [[reply.text]])
    return TeacherView(total / max(tokens, 1), f"log-likelihood a token, by {name} now")


def _written_for(
    contexts: TrainingContexts,
    own: npt.NDArray[np.int64],
    similarity: npt.NDArray[np.float32],
    vector: Tensor,
    encoder: StudentEncoder | DeployedEncoder,
    text: StudentText,
) -> list[Neighbour]:
    """Return the contexts that had the reply, nearest first; those without a vector last."""
    found = [contexts.candidate(place) for place in own.tolist()]
    rows = list(dict.fromkeys(one["row"] for one in found))
    known: dict[int, float] = {row: float(similarity[row]) for row in rows if row < len(similarity)}
    others = [row for row in rows if row not in known][:MOST_ENCODED]
    if others:
        vectors = context_vectors(encoder, text, [contexts.lines(row) for row in others])
        known |= dict(zip(others, (vectors @ vector).tolist(), strict=True))
    neighbours = [_neighbour(contexts, one["row"], known.get(one["row"]), one) for one in found]
    return sorted(neighbours, key=lambda one: -np.inf if one.similarity is None else one.similarity, reverse=True)


def _neighbour(contexts: TrainingContexts, row: int, similarity: float | None, candidate: dict[str, Any]) -> Neighbour:
    return Neighbour(
        contexts.contexts["example_id"][row].as_py(),
        tuple(contexts.lines(row)),
        similarity,
        candidate["response"],
        candidate["source"],
        candidate["teacher_score"],
    )
