"""The best responses by a poly-encoder's score, with the proof that there are no better ones.

1. A screen (:mod:`poly_screen`) scores every response roughly, and says how much it may be off. The roughly best are
   **rescored** exactly: the first round. ``exact=False`` ends here.
2. The k-th best of the rescored is a score that no answer falls below. Every response whose rough score, with all that
   it may be off, stays below that is ruled out. Where none is left, **the first round has proved its answer**.
3. Else the next round rescores what is left, the most promising first, and so on until nothing is left.

So the answer is the k best by (score, row), the score being computed in float64 and rounded to float32 once: the same
whichever screen is used, whatever the size of blocks and batches. Equal vectors are equal, the lower row first.

REFERENCE's proof (search with every code, no response outside the union scores above the best of the codes' k-th
products) rules out less: a score is a mean of products, and their maximum is far above it unless one code has all of
the attention. A screen sees the mean itself, and its bound does not depend on how sharp the attention is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from g2r_lightning.cpu import cpu_multiplies_bf16
from g2r_lightning.index.poly_bounds import lengths_of, slack_of
from g2r_lightning.index.poly_screen import Screen
from g2r_lightning.machine import free_memory
from g2r_lightning.student.poly_encoder import attended_scores

log = logging.getLogger(__name__)
FIRST = 256  # responses that the first round rescores at least,
FACTOR = 4  # or so many times k
ROUND = 4096  # and a later one at most
SMALL = 4096  # responses from which on a copy in bfloat16 is worth trying
SAMPLE, TRIES = 16_384, 7  # responses that both kinds are timed on, and how often
SPARSE = 0.5  # share of kept rows below which they alone are scored
TOGETHER = 1 << 24  # rough scores that are held at a time: 64 MiB, and as much for what they may be off
SHARE = 4  # of the free memory, one part in so many may be taken by the copy
FLOAT64_UNIT = 2.0**-52


@dataclass
class CodeCounts:
    """What was searched so far, one context at a time.

    Args:
        proved: searches whose answer was proved.
        first_round: those of them that the first round proved.
        rounds: rounds of them, in all.
        unproved: searches with ``exact=False``.
        rescored: responses that were scored exactly, in all searches.
    """

    proved: int = 0
    first_round: int = 0
    rounds: int = 0
    unproved: int = 0
    rescored: int = 0


class _Best(NamedTuple):
    """The k best of some responses: scores (k,) float64 and places (k,) int64, best first, and how surely.

    Args:
        scores: exact but for float64's rounding.
        places: among the rows that are searched.
        sure: the score that no answer falls below; minus infinity where there are fewer than k.
    """

    scores: Tensor
    places: Tensor
    sure: float


class CodeSearch:
    """Search responses by codes.

    Args:
        vectors: (R, d) float32 or float16; must not be changed afterwards.
    """

    def __init__(self, vectors: npt.NDArray[np.float32] | npt.NDArray[np.float16]) -> None:
        self.vectors = vectors
        self.counts = CodeCounts()
        self.chosen: dict[str, Any] = {}
        self._screen: Screen | None = None
        self._lock = Lock()

    def prepare(self, codes: int) -> None:
        """Choose the screen now, so that no search waits for it.

        Args:
            codes: m, how many a context has.
        """
        self._screen_for(torch.from_numpy(np.asarray(self.vectors[:codes], np.float32)))

    def use(self, screen: Screen) -> None:
        """Search by this screen, instead of the one that would be chosen."""
        with self._lock:
            self._screen, self.chosen = screen, {"name": str(screen.dtype).removeprefix("torch."), "why": "told to"}

    def told(self) -> dict[str, Any]:
        """Return counts and the choice of the screen, for people and records."""
        share = self.counts.first_round / self.counts.proved if self.counts.proved else None
        return {**asdict(self.counts), "first_round_share": share, "screen": dict(self.chosen)}

    @torch.no_grad()
    def search(
        self, contexts: Tensor, k: int, keep: npt.NDArray[np.bool_] | None = None, exact: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return the k best responses of each context.

        Args:
            contexts: (B, m, d) codes; a zero code is none.
            k: how many.
            keep: (R,) bool, the rows that may be returned; all of them where ``None``.
            exact: go on until the answer is proved; else one round alone.

        Returns:
            Scores (B, k) float32 and rows (B, k) int64, best first, equal scores by row; k is the number of kept rows
            where that is smaller.
        """
        rows = None if keep is None else torch.from_numpy(np.flatnonzero(keep))
        count = len(self.vectors) if rows is None else len(rows)
        k = min(k, count)
        scores, found = torch.empty(len(contexts), k), torch.empty(len(contexts), k, dtype=torch.int64)
        if not k or not len(contexts):
            return scores, found
        codes = [_present(own) for own in contexts.float()]
        screen = self._screen_for(codes[0])
        step = max(TOGETHER // len(self.vectors), 1)
        for start in range(0, len(codes), step):
            some = codes[start : start + step]
            for place, rough, slack in zip(range(start, len(codes)), *_rough(screen, some, rows), strict=False):
                best = self._proved(codes[place], k, rough, slack, rows, exact)
                scores[place] = best.scores.float()
                found[place] = best.places if rows is None else rows[best.places]
        return scores, found

    def _proved(self, codes: Tensor, k: int, rough: Tensor, slack: Tensor, rows: Tensor | None, exact: bool) -> _Best:
        """Rescore round after round, until nothing can be better than what was found."""
        first = torch.topk(rough, min(max(FACTOR * k, FIRST), len(rough)), sorted=False).indices
        best = self._best(codes, first, k, rows)
        rounds, rescored = 1, len(first)
        if exact:
            upper, left = rough + slack, torch.ones(len(rough), dtype=torch.bool)
            left[first] = False
            while len(open_ := torch.nonzero(left & ~(upper < best.sure))[:, 0]):
                if len(open_) > ROUND:
                    open_ = open_[torch.topk(upper[open_], ROUND, sorted=False).indices]
                best = self._best(codes, torch.cat([best.places, open_]), k, rows)
                left[open_] = False
                rounds, rescored = rounds + 1, rescored + len(open_)
        self._count(exact, rounds, rescored)
        return best

    def _best(self, codes: Tensor, places: Tensor, k: int, rows: Tensor | None) -> _Best:
        """Return the k best of some responses: scored in float32, and again in float64 where that may matter."""
        places = places.sort().values
        vectors = self._vectors(places if rows is None else rows[places])
        lengths = lengths_of(vectors)
        if len(places) > 2 * k:
            rough = attended_scores(codes[None], vectors)[0]
            slack = slack_of(codes, None).of(lengths, None)
            sure = torch.topk(torch.nan_to_num(rough - slack, nan=-np.inf, posinf=-np.inf), k).values[-1]
            left = ~(rough + slack < sure)
            places, vectors, lengths = places[left], vectors[left], lengths[left]
        exact = attended_scores(codes[None].double(), vectors.double())[0]
        order = torch.sort(exact.float(), descending=True, stable=True).indices[:k]
        if len(order) < k:
            return _Best(exact[order], places[order], -np.inf)
        return _Best(exact[order], places[order], _below(exact[order[-1]], codes, lengths))

    def _vectors(self, rows: Tensor) -> Tensor:
        """Return (n, d) float32 vectors of n rows."""
        taken = np.asarray(self.vectors)[rows.numpy()]
        return torch.from_numpy(taken.astype(np.float32, copy=False))

    def _count(self, exact: bool, rounds: int, rescored: int) -> None:
        with self._lock:
            counts = self.counts
            counts.rescored += rescored
            if exact:
                counts.proved += 1
                counts.rounds += rounds
                counts.first_round += rounds == 1
            else:
                counts.unproved += 1

    def _screen_for(self, codes: Tensor) -> Screen:
        """Return the screen, chosen when it is first needed."""
        with self._lock:
            if self._screen is None:
                self._screen, self.chosen = _choose(self.vectors, codes)
            return self._screen


def _rough(screen: Screen, codes: list[Tensor], rows: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return rough scores (B, n) and what they may be off: of all rows where most of them are kept, else of those."""
    if rows is None or len(rows) < SPARSE * len(screen.vectors):
        return screen.scores(codes, rows)
    scores, slacks = screen.scores(codes)
    return scores[:, rows], slacks[:, rows]


def _choose(vectors: npt.NDArray[Any], codes: Tensor) -> tuple[Screen, dict[str, Any]]:
    """Return the faster screen, and why: both score the first responses for one context, several times in turns.

    The fastest try of each counts, since on a busy machine every other one tells what else was running. The bfloat16
    products are compared with the float32 ones on the way: a CPU or library that breaks their bound is not trusted.
    """

    def plain(why: str, **told: Any) -> tuple[Screen, dict[str, Any]]:
        """Return brute force in float32, with the reason."""
        return Screen(vectors, torch.float32), {"name": "float32", "why": why, **told}

    if len(vectors) < SMALL:
        return plain(f"fewer than {SMALL} responses")
    if not cpu_multiplies_bf16():
        return plain("the CPU has no bfloat16 products")
    free = free_memory()
    if free is not None and 2 * vectors.size > free // SHARE:
        return plain("too little memory for a copy in bfloat16")
    both = [Screen(vectors[:SAMPLE], dtype) for dtype in (torch.float32, torch.bfloat16)]
    (exact, exact_slack), (rough, slack) = (screen.scores([codes]) for screen in both)
    plain_ms, coarse_ms = _fastest(both, codes)
    told = {"float32_ms": plain_ms, "bfloat16_ms": coarse_ms, "of_responses": len(exact[0])}
    if not bool(((rough - exact).abs() <= slack + exact_slack).all()):
        log.warning("bfloat16 products are less exact on this machine than they should be: float32 is used instead")
        return plain("bfloat16 products are not exact enough", **told)
    if plain_ms < coarse_ms:
        return plain("measured", **told)
    return Screen(vectors, torch.bfloat16), {"name": "bfloat16", "why": "measured", **told}


def _fastest(screens: Sequence[Screen], codes: Tensor) -> list[float]:
    """Return the milliseconds of each screen's fastest try at one context, the screens in turns."""
    times: list[list[float]] = [[] for _ in screens]
    for _ in range(TRIES):
        for screen, own in zip(screens, times, strict=True):
            begun = time.perf_counter()
            screen.scores([codes])
            own.append(1000 * (time.perf_counter() - begun))
    return [round(min(own), 3) for own in times]


def _present(codes: Tensor) -> Tensor:
    """Return the (n, d) codes that are there: those that are not zero; one of them where all are."""
    there = codes[(codes != 0).any(dim=1)]
    return there if len(there) else codes[:1]


def _below(score: Tensor, codes: Tensor, lengths: Tensor) -> float:
    """Return a score that is surely smaller than this one as float32 has it, float64's rounding included."""
    off = sum(codes.shape) * FLOAT64_UNIT * float(codes.double().norm(dim=1).max()) * float(lengths.max())
    return float(np.nextafter(np.float32(float(score)), np.float32(-np.inf))) - 8 * off
