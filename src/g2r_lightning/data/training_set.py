"""The training set of a student: contexts, their candidates with the teacher's scores, and the negatives of a step.

Of each context at most ``max_candidates`` candidates enter a step, a uniform sample where there are more (the original
may drop out; where some are no positives, as in score transfer without data-level G2R, the positives stay and the rest
is sampled). The random negatives are distinct responses drawn uniformly from the response set, one draw shared by
the whole global batch, minus every *known* candidate of the batch's contexts, sampled or not (Kim et al. 2021; their
code excludes the sampled ones only). Equal texts are one response, and never each other's negatives.

Several processes share one step: each works on its own contexts, but in-batch negatives are the candidates of all the
global batch's contexts, and every distinct response is encoded by one process alone. A process that has no context
in an epoch's last step takes part with one that is in no mask: its share of the responses is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from g2r_lightning.data.batches import CandidateBatch
from g2r_lightning.data.responses import ResponseSet
from g2r_lightning.data.samplers import StepKey
from g2r_lightning.data.sharing import share_out
from g2r_lightning.data.tokens import TokenTable, pad
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import G2RError

Rows = npt.NDArray[np.int64]
CANDIDATE_DRAW, NEGATIVE_DRAW = 1, 2
NONE = -1
"""No response."""


class ScoredCandidate(NamedTuple):
    """A candidate as training needs it.

    Args:
        response: its text.
        source: who wrote it.
        teacher_score: natural log; NaN where there is no teacher.
        positive: whether it enters the cross-entropy.
    """

    response: str
    source: str
    teacher_score: float = float("nan")
    positive: bool = True


@dataclass(frozen=True)
class NegativeSampling:
    """Where a step's negatives come from.

    Args:
        random: distinct responses drawn from the response set for every step, shared by its contexts (reference: 512).
        in_batch: whether the other contexts' candidates are negatives too, those of all processes (reference: no).
    """

    random: int = 512
    in_batch: bool = False

    def __post_init__(self) -> None:
        """Refuse a setting without any negative.

        Raises:
            ValueError: no random negatives, and none from the batch.
        """
        if self.random < 0:
            raise ValueError(f"negatives.random={self.random}: must not be negative")
        if self.random == 0 and not self.in_batch:
            raise ValueError("negatives: set random above 0 or in_batch to true; the loss needs something to beat")


class TrainingSet(Dataset[CandidateBatch]):
    """Make the batch of a step from its key.

    Args:
        examples: training examples.
        candidates: their candidates, the original first; texts equal under the response set's key are merged.
        responses: the response set, which the candidates are looked up in and negatives are drawn from.
        context_tokens: one row an example.
        response_tokens: one row a response of the set.
        pad_id: token id of the padding.
        negatives: where negatives come from.
        max_candidates: most candidates of a context in one step.
        seed: of every draw.
        pool: (P,) int64, rows of the responses that may be negatives, of whichever scheme; ``None`` for all.
    """

    def __init__(
        self,
        examples: list[Example],
        candidates: Sequence[Sequence[ScoredCandidate]],
        responses: ResponseSet,
        context_tokens: TokenTable,
        response_tokens: TokenTable,
        pad_id: int,
        negatives: NegativeSampling,
        max_candidates: int = 10,
        seed: int = 0,
        pool: Rows | None = None,
    ) -> None:
        if max_candidates < 1:
            raise ValueError(f"max_candidates={max_candidates}: at least 1")
        self.ids = [example.id for example in examples]
        self.context_tokens = context_tokens
        self.response_tokens = response_tokens
        self._pool: Rows = np.arange(len(responses)) if pool is None else np.unique(pool)
        self._in_pool = np.zeros(len(responses), bool)
        self._in_pool[self._pool] = True
        self.pad_id = pad_id
        self.negatives = negatives
        self.max_candidates = max_candidates
        self.seed = seed
        self.hard_negatives: Rows | None = None  # (examples, k) rows of responses, NONE where there are fewer
        self._index(candidates, responses)
        self.has_teacher = bool(len(self._scores)) and bool(np.isfinite(self._scores).all())
        if not self.has_teacher and np.isfinite(self._scores).any():
            raise G2RError(self._first_without_score())

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: StepKey) -> CandidateBatch:
        """Return the batch of one step, as this process sees it."""
        sampled = [self._sample(key.epoch, example) for example in key.examples]
        own = sampled[key.rank :: key.world_size]
        negatives = self._draw_negatives(key)
        step = np.concatenate([self._distinct(sampled), negatives])  # the same on every process
        concerns_all = self.negatives.in_batch or key.world_size == 1 or not own
        columns = step if concerns_all else np.concatenate([self._distinct(own), negatives])
        where = {int(row): column for column, row in enumerate(columns)}
        local = key.local or key.examples[:1]
        shape = (len(local), len(columns))
        candidates, positives = np.zeros(shape, bool), np.zeros(shape, bool)
        teacher = np.full(shape, np.nan, np.float32)
        for b, entries in enumerate(own):
            at = [where[int(row)] for row in self._rows[entries]]
            candidates[b, at] = True
            positives[b, at] = self._positive[entries]
            teacher[b, at] = self._scores[entries]
        masked = np.zeros(shape, bool)
        masked[: len(own), len(columns) - len(negatives) :] = True
        if self.negatives.in_batch:
            masked[: len(own), : len(columns) - len(negatives)] = self._in_pool[
                columns[: len(columns) - len(negatives)]
            ]
            for b, example in enumerate(key.local):
                masked[b, [where[int(row)] for row in self.known(example) if int(row) in where]] = False
        context_ids, context_mask = pad([self.context_tokens[i] for i in local], self.pad_id)
        rows, places = self._share(key, step, columns)
        response_ids, response_mask = pad([self.response_tokens[int(row)] for row in rows], self.pad_id)
        return CandidateBatch(
            context_ids, context_mask, response_ids, response_mask,
            torch.from_numpy(positives), torch.from_numpy(candidates), torch.from_numpy(masked),
            torch.from_numpy(teacher) if self.has_teacher else None, torch.tensor(local), places,
        )  # fmt: skip

    def _index(self, candidates: Sequence[Sequence[ScoredCandidate]], responses: ResponseSet) -> None:
        """Flatten the candidates into arrays: entry e belongs to example i where offsets[i] <= e < offsets[i + 1]."""
        rows: list[int] = []
        scores: list[float] = []
        positive: list[bool] = []
        offsets = [0]
        for own in candidates:
            seen: set[int] = set()
            for candidate in own:
                row = responses.find(candidate.response)
                assert row is not None, "candidates are part of the response set they are indexed by"
                if row not in seen:
                    seen.add(row)
                    rows.append(row)
                    scores.append(candidate.teacher_score)
                    positive.append(candidate.positive)
            offsets.append(len(rows))
        self._rows: Rows = np.asarray(rows, np.int64)
        self._scores = np.asarray(scores, np.float64)
        self._positive = np.asarray(positive, bool)
        self._offsets = np.asarray(offsets, np.int64)

    def may_be_negative(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Return which of these responses may be negatives of a context that does not know them."""
        return self._in_pool[rows]

    def known(self, example: int) -> Rows:
        """Return the responses that are candidates of an example, whether a step samples them or not."""
        return self._rows[self._offsets[example] : self._offsets[example + 1]]

    def _sample(self, epoch: int, example: int) -> Rows:
        """Return the entries of an example's candidates that enter this epoch's step, in stored order."""
        start, stop = int(self._offsets[example]), int(self._offsets[example + 1])
        entries = np.arange(start, stop)
        if len(entries) <= self.max_candidates:
            return entries
        draw = np.random.default_rng([self.seed, CANDIDATE_DRAW, epoch, example])
        positives, rest = entries[self._positive[start:stop]], entries[~self._positive[start:stop]]
        if not len(rest) or len(positives) >= self.max_candidates:
            return np.sort(draw.choice(positives, self.max_candidates, replace=False))
        sampled = draw.choice(rest, self.max_candidates - len(positives), replace=False)
        return np.sort(np.concatenate([positives, sampled]))

    def _distinct(self, sampled: list[Rows]) -> Rows:
        """Return the distinct responses of these entries in order of first appearance."""
        return _first_seen([self._rows[entries] for entries in sampled])

    def _share(self, key: StepKey, step: Rows, columns: Rows) -> tuple[Rows, torch.Tensor | None]:
        """Choose what this process encodes.

        Args:
            key: of the step.
            step: distinct responses of all processes, the same on each.
            columns: those that concern this process's contexts.

        Returns:
            The responses to encode, and the place of each column's vector among the gathered ones.
        """
        if key.world_size == 1:
            return columns, None
        shares, places = share_out(np.array([len(self.response_tokens[int(row)]) for row in step]), key.world_size)
        place = dict(zip(step.tolist(), places.tolist(), strict=True))
        return step[shares[key.rank]], torch.tensor([place[row] for row in columns.tolist()])

    def _draw_negatives(self, key: StepKey) -> Rows:
        """Return the step's shared negatives, random and hard: distinct rows, no known candidate among them."""
        known = np.unique(np.concatenate([self.known(example) for example in key.examples]))
        hard = np.unique(self.hard_negatives[list(key.examples)]) if self.hard_negatives is not None else _NOTHING
        hard = hard[(hard != NONE) & ~np.isin(hard, known)]
        hard = hard[self._in_pool[hard]]
        random = self._draw_random(key, known)
        return np.concatenate([random, hard[~np.isin(hard, random)]])

    def _draw_random(self, key: StepKey, known: Rows) -> Rows:
        if self.negatives.random == 0:
            return _NOTHING
        draw = np.random.default_rng([self.seed, NEGATIVE_DRAW, key.epoch, key.step])
        wanted = min(self.negatives.random + int(self._in_pool[known].sum()), len(self._pool))
        drawn = self._pool[draw.choice(len(self._pool), wanted, replace=False)]
        return drawn[~np.isin(drawn, known)][: self.negatives.random].astype(np.int64)

    def _first_without_score(self) -> str:
        entry = int(np.flatnonzero(~np.isfinite(self._scores))[0])
        example = int(np.searchsorted(self._offsets, entry, side="right")) - 1
        return (
            f"example {self.ids[example]}: a candidate has no finite teacher score; run `score` for the whole store, "
            "or set data.init_args.teacher_score to null to train without score transfer"
        )


_NOTHING: Rows = np.empty(0, np.int64)


def _first_seen(groups: list[Rows]) -> Rows:
    """Return the distinct rows of all groups in order of first appearance."""
    joined = np.concatenate(groups) if groups else np.empty(0, np.int64)
    rows, first = np.unique(joined, return_index=True)
    ordered: Rows = rows[np.argsort(first)]
    return ordered
