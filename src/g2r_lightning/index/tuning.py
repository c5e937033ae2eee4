"""How good and how fast an index is on real contexts, and which of its settings is the cheapest that is good enough.

1. The exact search says what the k-th best score of each context is.
2. A setting's **recall@k** is the share of the k rows it finds whose score is at least that: ties are no errors. Scores
   are the student's own at any setting, so they can be compared.
3. Along a line of settings that grow dearer, measuring stops at the first that reaches the target, after a look at what
   lies halfway to the one before, or where more effort finds nothing more.
4. Chosen is the fastest that reaches the target **in both halves** of the contexts: a setting that was lucky in one
   sample alone is not taken.

Contexts that were made up would flatter every index: use real ones of the kind that will be asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from g2r_lightning.index.candidates import Line, Setting
from g2r_lightning.index.response_index import ResponseIndex
from g2r_lightning.metrics import TIE_TOLERANCE

TIMED = 200  # single contexts that a setting is timed on, at most,
SECONDS = 4.0  # and for how long
WARM_UP = 10
NOTHING_MORE = 5e-4  # recall that a dearer setting has to add, for the next one to be tried


@dataclass(frozen=True)
class Point:
    """One setting of one index, measured.

    Args:
        factory: FAISS factory string.
        search: search parameters.
        recall: share of the k best that are found, 0 to 1.
        worse_half: the same over the half of the contexts where it is lower.
        p50_ms: median time of a search for one context, in milliseconds.
        p95_ms: the time that 95% of them stay within.
        bytes: of the index that is searched.
        build_seconds: training and filling it.
    """

    factory: str
    search: Setting
    recall: float
    worse_half: float
    p50_ms: float
    p95_ms: float
    bytes: int
    build_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return what a manifest says of it."""
        return asdict(self)


@dataclass
class Measurement:
    """Contexts, and what an exact search finds for each of them.

    Args:
        queries: (Q, d) float32: contexts, or the codes of a poly-encoder's contexts.
        at: the k of recall@k.
        target: recall that is wanted, 0 to 1.
    """

    queries: Tensor
    at: int
    target: float
    least_scores: Tensor = field(init=False)

    def know(self, exact: ResponseIndex) -> None:
        """Search with the exact index, once for all that will be measured."""
        self.least_scores = exact.search(self.queries, self.at, dot)[0][:, -1:]

    def measure(self, index: ResponseIndex, search: Setting, size: int, build_seconds: float) -> Point:
        """Measure an index at one setting, which it keeps.

        Args:
            index: to measure.
            search: its parameters.
            size: bytes of it.
            build_seconds: what it took to make.
        """
        index.set_search(search)
        scores, _ = index.search(self.queries, self.at, dot)
        slack = TIE_TOLERANCE * self.least_scores.abs()
        found = (scores >= self.least_scores - slack).float().mean(dim=1)
        halves = [float(half.mean()) for half in (found[::2], found[1::2]) if len(half)]
        p50, p95 = latency(index, self.queries, self.at)
        return Point(
            index.factory, dict(search), round(float(found.mean()), 5), round(min(halves), 5), p50, p95, size,
            build_seconds,
        )  # fmt: skip

    def along(self, index: ResponseIndex, lines: Sequence[Line], size: int, build_seconds: float) -> list[Point]:
        """Measure an index along its lines of settings; see :meth:`measure`."""
        points = []
        for line in lines:
            before, cheaper = -1.0, None
            for search in line:
                point = self.measure(index, search, size, build_seconds)
                now = point.worse_half
                if now >= self.target and cheaper is not None and (between := halfway(cheaper, search)) is not None:
                    points.append(self.measure(index, between, size, build_seconds))
                points.append(point)
                if now >= self.target or (before > 0.5 and now - before < NOTHING_MORE):
                    break
                before, cheaper = now, search
        return points

    def reached(self, point: Point) -> bool:
        """Whether a setting is good enough."""
        return point.worse_half >= self.target

    def best(self, points: Sequence[Point]) -> Point:
        """Return the fastest point that reaches the target, else the one with the highest recall."""
        enough = [point for point in points if self.reached(point)]
        if enough:
            return min(enough, key=lambda point: point.p50_ms)
        return max(points, key=lambda point: (point.worse_half, -point.p50_ms))


def halfway(cheaper: Setting, dearer: Setting) -> Setting | None:
    """Return the setting between two neighbours of a line, or ``None`` where there is none.

    >>> halfway({"nprobe": 256, "refine": 4}, {"nprobe": 512, "refine": 4})
    {'nprobe': 362, 'refine': 4}
    >>> halfway({"nprobe": 1, "refine": 4}, {"nprobe": 2, "refine": 4})
    """
    between: Setting = {name: round(math.sqrt(cheaper[name] * value)) for name, value in dearer.items()}
    return None if between in (cheaper, dearer) else between


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both recall and time, fastest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.p50_ms, -point.recall)):
        if not kept or point.recall > kept[-1].recall:
            kept.append(point)
    return kept


def latency(index: ResponseIndex, queries: Tensor, k: int) -> tuple[float, float]:
    """Return median and 95th percentile of the time of a search for one context, in milliseconds.

    Args:
        index: to search.
        queries: (Q, d) float32.
        k: rows a context.
    """
    times: list[float] = []
    singles = [queries[row : row + 1] for row in range(len(queries))]
    for query in singles[:WARM_UP]:
        index.search(query, k, dot)
    end = time.perf_counter() + SECONDS
    for query in singles[:TIMED]:
        begun = time.perf_counter()
        index.search(query, k, dot)
        times.append(time.perf_counter() - begun)
        if time.perf_counter() > end:
            break
    p50, p95 = np.percentile(np.array(times) * 1000, [50, 95])
    return round(float(p50), 4), round(float(p95), 4)


def dot(contexts: Tensor, responses: Tensor) -> Tensor:
    """Return (B, U) inner products."""
    return contexts @ responses.T


def queries_of(contexts: Tensor, most: int, seed: int = 0) -> Tensor:
    """Return at most ``most`` vectors to search with.

    Args:
        contexts: (Q, d) vectors, or (Q, m, d) codes, each of which is searched for by itself.
        most: how many.
        seed: of the draw.
    """
    vectors = contexts.flatten(0, -2).float()
    vectors = vectors[vectors.any(dim=1)]  # a code that a short context lacks is zero
    if len(vectors) <= most:
        return vectors
    rows = np.random.default_rng(seed).choice(len(vectors), most, replace=False)
    return vectors[torch.from_numpy(np.sort(rows))]
