"""Choosing among found replies: functions on a list that was fetched longer than what is wanted.

1. What was said in the last turns is not said again (:func:`said`, :func:`unsaid`).
2. Several replies should not be one in other words. Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998)
   takes one after another the reply of the highest ``lambda * relevance - (1 - lambda) * similarity``, the similarity
   being the highest cosine to those that were taken (:func:`diverse`).
3. A reply that scores below a threshold is none: where the best does, the retriever abstains (:func:`good_enough`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from g2r_lightning.dialogue.text import normalised


class Hit(NamedTuple):
    """A response that was found: the student's score, its row, and the score of the second stage where there is one."""

    score: float
    row: int
    rerank_score: float | None = None


def said(context: Sequence[str], turns: int) -> frozenset[str]:
    """Return what the last turns of a dialogue said, whoever spoke; case and punctuation are forgotten.

    >>> said(["Hi!", "hello", "So?"], 2) == {"hello", "so"}
    True

    Args:
        context: utterances, oldest first.
        turns: how many of the last are looked at; 0 for none.
    """
    return frozenset(map(normalised, context[-turns:])) if turns else frozenset()


def unsaid(texts: Sequence[str], before: frozenset[str]) -> npt.NDArray[np.bool_]:
    """Return which of n texts were not said before.

    Args:
        texts: n of them.
        before: of :func:`said`.

    Returns:
        (n,) bool.
    """
    if not before:
        return np.ones(len(texts), bool)
    return np.array([normalised(text) not in before for text in texts], bool)


def good_enough(scores: npt.NDArray[np.float32], threshold: float | None) -> npt.NDArray[np.bool_]:
    """Return which of n scores reach the threshold, (n,) bool; all of them where there is none."""
    return np.ones(len(scores), bool) if threshold is None else scores >= threshold


def diverse(
    scores: npt.NDArray[np.floating[Any]], vectors: npt.NDArray[np.float32], k: int, diversity: float
) -> npt.NDArray[np.int64]:
    """Return the places of k replies by maximal marginal relevance, in the order in which they are taken.

    The relevance is the score, brought to 0 (the worst of the n) to 1 (the best), since students' scores have any
    scale. Where two are worth the same, the one that stands first is taken; the best reply is always the first.

    Args:
        scores: (n,) of the replies, the best first.
        vectors: (n, d) of the replies; a zero vector is like no other.
        k: how many; all n where there are fewer.
        diversity: 1 - lambda; from 0 (the k best) to 1 (what is least like those taken, whatever its score).

    Returns:
        (min(k, n),) int64.
    """
    k = min(k, len(scores))
    if diversity == 0 or k < 2:
        return np.arange(k)
    known = scores.astype(np.float64) - float(scores.min())
    relevance = known / known.max() if known.max() > 0 else np.ones(len(scores))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float64)
    unit = np.divide(vectors, lengths, out=np.zeros(vectors.shape), where=lengths > 0)
    taken = [0]
    free = np.ones(len(scores), bool)
    closest = np.full(len(scores), -np.inf)
    while len(taken) < k:
        free[taken[-1]] = False
        closest = np.maximum(closest, unit @ unit[taken[-1]])
        worth = (1 - diversity) * relevance - diversity * closest
        taken.append(int(np.argmax(np.where(free, worth, -np.inf))))
    return np.array(taken, np.int64)
