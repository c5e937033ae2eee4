"""An index under rules: which rows may be said is a mask that is made once, the rest is decided reply by reply."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from g2r_lightning.errors import ConfigError
from g2r_lightning.index.columns import metadata_of
from g2r_lightning.index.conditions import parse_condition
from g2r_lightning.index.overlay import LiveIndex
from g2r_lightning.index.response_index import ResponseIndex
from g2r_lightning.index.selection import diverse, good_enough, said, unsaid
from g2r_lightning.inference.rules import CALIBRATED, ReplyRules
from g2r_lightning.metrics import ScoreBlock

Mask = npt.NDArray[np.bool_]
MASKS_KEPT = 32


class Hit(NamedTuple):
    """A response that was found: its score and its row."""

    score: float
    row: int


class RuledIndex:
    """Search one index under any rules.

    Args:
        index: the responses.
        calibrated: the threshold of rules that ask for the ``calibrated`` one; ``None`` where there is none.
    """

    def __init__(self, index: ResponseIndex | LiveIndex, calibrated: float | None = None) -> None:
        self.index = index
        self.calibrated = calibrated
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
            if rules.blocked:
                left = np.flatnonzero(mask)
                mask[left] = rules.blocked.mask([self.index.texts[row] for row in left.tolist()])
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
        return self.calibrated

    def search(
        self, encoded: Tensor, contexts: Sequence[Sequence[str]], k: int, score: ScoreBlock, rules: ReplyRules
    ) -> list[list[Hit]]:
        """Return the k best replies to each context that the rules allow, in the order in which they are preferred.

        More are fetched than wanted, and more again for as long as the rules of a context leave too few.

        Args:
            encoded: (B, d) or (B, m, d), the encoded contexts.
            contexts: their B utterance lists, oldest first.
            k: how many.
            score: the student's scoring.
            rules: what may be said.

        Returns:
            B lists; shorter than k, or empty, where nothing else reaches the threshold or is left.
        """
        keep, threshold = self.keep(rules), self.threshold(rules)
        before = [said(context, rules.no_repeat) for context in contexts]
        wanted = max(k, rules.pool) if rules.diversity and k > 1 else k
        found: list[list[Hit]] = [[] for _ in contexts]
        waiting, fetched = list(range(len(contexts))), wanted + max(map(len, before), default=0)
        while waiting:
            scores, rows = self.index.search(encoded[waiting], fetched, score, keep, rules.exact)
            short = []
            for context, own in zip(waiting, zip(scores.numpy(), rows.numpy(), strict=True), strict=True):
                allowed = self._allowed(*own, before[context], threshold)
                best, places = (column[allowed][:wanted] for column in own)
                found[context] = self._chosen(best, places, k, rules.diversity)
                more = len(own[0]) == fetched and (threshold is None or own[0][-1] >= threshold)
                if more and allowed.sum() < wanted:
                    short.append(context)
            waiting, fetched = short, 2 * fetched
        return found

    def _allowed(
        self, scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], before: frozenset[str], threshold: Any
    ) -> Mask:
        allowed = good_enough(scores, threshold)
        return allowed & unsaid([self.index.texts[row] for row in rows.tolist()], before) if before else allowed

    def _chosen(
        self, scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], k: int, diversity: float
    ) -> list[Hit]:
        if diversity and k > 1 and len(rows):
            order = diverse(scores, self._vectors(rows), k, diversity)
            scores, rows = scores[order], rows[order]
        return [Hit(*each) for each in zip(scores[:k].tolist(), rows[:k].tolist(), strict=True)]

    def _vectors(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        if isinstance(self.index, LiveIndex):
            return self.index.vectors(rows)
        return np.asarray(self.index.embeddings[rows], np.float32)
