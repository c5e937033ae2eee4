"""An index under rules: which rows may be said is a mask that is made once, the rest is decided reply by reply.

The order, for every context:

1. conditions and block lists say which rows are searched at all;
2. of what the search finds, best first, that stays which was not said in the last turns and whose score (the
   student's, in which thresholds are calibrated) reaches the threshold;
3. a second stage, if there is one, puts the n best of these in its own order;
4. diversity chooses among the pool's best by the scores of the last stage; else the first k are taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index.columns import metadata_of
from g2r_lightning.index.conditions import parse_condition
from g2r_lightning.index.overlay import LiveIndex
from g2r_lightning.index.response_index import ResponseIndex
from g2r_lightning.index.selection import Hit, diverse, good_enough, said, unsaid
from g2r_lightning.inference.rules import CALIBRATED, ReplyRules
from g2r_lightning.inference.stopwatch import Stage
from g2r_lightning.metrics import ScoreBlock

log = logging.getLogger(__name__)
Mask = npt.NDArray[np.bool_]
MASKS_KEPT = 32


class SecondStage(NamedTuple):
    """What ranks the best replies to some contexts anew.

    Args:
        n: how many replies to each.
        score: replies to each of the contexts -> a score for each of them, higher is better.
    """

    n: int
    score: Callable[[Sequence[Sequence[str]]], Sequence[Sequence[float]]]


class Ranked(NamedTuple):
    """What may be said in one context, best first.

    Args:
        scores: (n,) float32, the student's.
        rows: (n,) int64.
        second: (n,) float64, the second stage's, by which they stand in order; ``None`` without one.
    """

    scores: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    second: npt.NDArray[np.float64] | None = None

    def at(self, places: Any) -> Ranked:
        """Return some of them, by their places or a mask."""
        return Ranked(self.scores[places], self.rows[places], None if self.second is None else self.second[places])


class RuledIndex:
    """Search one index under any rules.

    Args:
        index: the responses.
        calibrated: the threshold of rules that ask for the ``calibrated`` one; ``None`` where there is none.
        outdated: why that one does not hold for these responses; whoever uses it is warned, once.
    """

    def __init__(
        self, index: ResponseIndex | LiveIndex, calibrated: float | None = None, outdated: str | None = None
    ) -> None:
        self.index = index
        self.calibrated = calibrated
        self.outdated = outdated
        self._warned = False
        self._masks: dict[ReplyRules, Mask] = {}

    @cached_property
    def table(self) -> pa.Table:
        """What is known of the responses, a row each."""
        return self.index.table

    def metadata(self, row: int) -> dict[str, Any]:
        """Return what is known of a response beside text and source, by column; nothing of what is missing."""
        values = ((name, self._metadata[name][row].as_py()) for name in self._metadata.column_names)
        return {name: value for name, value in values if value is not None}

    @cached_property
    def _metadata(self) -> pa.Table:
        return metadata_of(self.table)

    def keep(self, rules: ReplyRules) -> Mask | None:
        """Return (rows,) bool: what may be said by ``where`` and the block list; ``None`` for everything.

        Raises:
            G2RError: the condition does not fit the columns, or the block list cannot be read.
        """
        if rules.all_may_be_said:
            return None
        which = rules.which
        mask = self._masks.get(which)
        if mask is None:
            mask = np.ones(len(self.index.texts), bool)
            if rules.where:
                mask &= parse_condition(rules.where).mask(self.table)
            if blocked := rules.blocked:
                left = np.flatnonzero(mask)
                mask[left] = blocked.mask([self.index.texts[row] for row in left.tolist()])
            while len(self._masks) >= MASKS_KEPT:
                self._masks.pop(next(iter(self._masks)), None)
            self._masks[which] = mask
        return mask

    def count(self, rules: ReplyRules) -> int:
        """Return how many responses the rules leave to choose from."""
        keep = self.keep(rules)
        if keep is None:
            return len(self.index)
        return int((keep & self.index.alive).sum() if isinstance(self.index, LiveIndex) else keep.sum())

    def threshold(self, rules: ReplyRules) -> float | None:
        """Return the score below which a reply is not given.

        Raises:
            ConfigError: the calibrated one is wanted of an index that never was.
        """
        if rules.threshold != CALIBRATED:
            return None if rules.threshold is None else float(rules.threshold)
        if self.calibrated is None:
            raise ConfigError(
                "rules.threshold=calibrated: this index was not calibrated on validation dialogues; do that "
                "(`index calibrate -c EXPERIMENT`), or give a score"
            )
        if self.outdated is not None and not self._warned:
            log.warning("%s", self.outdated)
            self._warned = True
        return self.calibrated

    def search(
        self,
        encoded: Tensor,
        contexts: Sequence[Sequence[str]],
        k: int,
        score: ScoreBlock,
        rules: ReplyRules,
        second: SecondStage | None = None,
        stage: Stage = nullcontext,
    ) -> list[list[Hit]]:
        """Return the k best replies to each context that the rules allow, in the order in which they are preferred.

        Args:
            encoded: (B, d) or (B, m, d), the encoded contexts.
            contexts: their B utterance lists, oldest first.
            k: how many.
            score: the student's scoring.
            rules: what may be said.
            second: ranks the best of these contexts anew.
            stage: is told when searching and reranking begin and end (``search``, ``rerank``).

        Returns:
            B lists; shorter than k, or empty, where nothing else reaches the threshold or is left.

        Raises:
            G2RError: a score of the second stage is no number.
        """
        with stage("search"):
            wanted = max(k, rules.pool) if rules.diversity and k > 1 else k
            ranked = self._ranked(encoded, contexts, wanted if second is None else second.n, score, rules)
        if second is not None:
            with stage("rerank"):
                texts = [[self.index.texts[row] for row in one.rows.tolist()] for one in ranked]
                ranked = [_reordered(one, own) for one, own in zip(ranked, second.score(texts), strict=True)]
        return [self._chosen(one.at(slice(wanted)), k, rules.diversity) for one in ranked]

    def _ranked(
        self, encoded: Tensor, contexts: Sequence[Sequence[str]], count: int, score: ScoreBlock, rules: ReplyRules
    ) -> list[Ranked]:
        """Return the ``count`` best that may be said in each context.

        More are fetched than wanted, and more again for as long as the rules of a context leave too few.
        """
        keep, threshold = self.keep(rules), self.threshold(rules)
        before = [said(context, rules.no_repeat) for context in contexts]
        found: dict[int, Ranked] = {}
        waiting, fetched = list(range(len(contexts))), count + max(map(len, before), default=0)
        while waiting:
            scores, rows = self.index.search(encoded[waiting], fetched, score, keep, rules.exact)
            short = []
            for context, own in zip(waiting, zip(scores.numpy(), rows.numpy(), strict=True), strict=True):
                allowed = self._allowed(*own, before[context], threshold)
                found[context] = Ranked(*(column[allowed][:count] for column in own))
                more = len(own[0]) == fetched and (threshold is None or own[0][-1] >= threshold)
                if more and allowed.sum() < count:
                    short.append(context)
            waiting, fetched = short, 2 * fetched
        return [found[context] for context in range(len(contexts))]

    def _allowed(
        self, scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], before: frozenset[str], threshold: Any
    ) -> Mask:
        allowed = good_enough(scores, threshold)
        return allowed & unsaid([self.index.texts[row] for row in rows.tolist()], before) if before else allowed

    def _chosen(self, ranked: Ranked, k: int, diversity: float) -> list[Hit]:
        """Return k of them, as diversity takes them."""
        if diversity and k > 1 and len(ranked.rows):
            relevance = ranked.scores if ranked.second is None else ranked.second
            order = diverse(relevance, self._vectors(ranked.rows), k, diversity)
            ranked = ranked.at(order)
        return [
            Hit(*each) for each in zip(*(column[:k].tolist() for column in ranked if column is not None), strict=True)
        ]

    def _vectors(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        if isinstance(self.index, LiveIndex):
            return self.index.vectors(rows)
        return np.asarray(self.index.embeddings[rows], np.float32)


def _reordered(ranked: Ranked, scores: Sequence[float]) -> Ranked:
    """Return them by other scores, equal ones in the order that they had.

    Raises:
        G2RError: a score is no number, so that there is no order.
    """
    second = np.asarray(scores, np.float64)
    if not np.isfinite(second).all():
        raise G2RError(
            "the second stage gave a score that is NaN or infinite; its model is damaged, or of another kind"
        )
    return Ranked(ranked.scores, ranked.rows, second).at(np.argsort(-second, kind="stable"))
