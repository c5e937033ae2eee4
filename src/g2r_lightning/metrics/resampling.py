"""Many figures on the same draws of dialogues, the spread between training seeds, and what several tests together mean.

1. A figure is what it depends on a dialogue at a time, :class:`Statistic`: a mean over turns is a sum over a sum; what
   is no mean (Dist-n) is its value plus each dialogue's influence on it.
2. As many dialogues as there are are drawn with replacement, many times (Efron and Tibshirani 1993, chapter 13). How
   often each came is a row of counts, so that all figures of all runs on all draws are one matrix product.
3. The spread of few drawn dialogues is too small by (D - 1)/D and has no heavy tails. Each draw's deviation is
   therefore multiplied by sqrt(D / X), X from chi-squared with D - 1 degrees of freedom: a normal mean's interval
   becomes Student's, and beyond a few hundred dialogues nothing changes.
4. Of a system that was trained several times, the mean over its seeds is the figure. Three seeds resampled give ten
   different means, and a spread that is sqrt(2/3) of the true one; so the mean's deviation is drawn from Student's t
   with the seeds' own variance, Welch's degrees of freedom for two systems. Runs differ on these dialogues also by
   what a seed makes of single dialogues; that part is in the seeds' variance, and is taken out of the draws'.
5. A p-value is read from the same draws as the interval (twice the share beyond zero), so that the two never disagree.
   Several are corrected by Holm's step-down, which holds however they depend on each other: hits and MRR, sets and
   their union say nearly the same. SciPy has false discovery rates only, which promise less than a table claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.float64]
_CELLS = 1 << 20  # drawn clusters held at a time
_TIE = 1e-12
"""Differences up to this share of the figures' magnitude are rounding."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """A figure as a function of how often each dialogue counts: ``offset + (counts @ top) / (counts @ bottom)``.

    Args:
        top: (D,) — a mean's sum over each dialogue's turns.
        bottom: (D,) — a mean's number of turns of each dialogue.
        offset: added to the ratio; 0 for a mean.
    """

    top: Column
    bottom: Column
    offset: float = 0.0

    @property
    def value(self) -> float:
        """The figure on the dialogues as they are."""
        return float(self.offset + self.top.sum() / self.bottom.sum())

    @classmethod
    def mean(cls, values: npt.ArrayLike, codes: npt.NDArray[np.int64], sizes: Column) -> Statistic:
        """Return the mean of per-example values.

        Args:
            values: (n,) — one value an example.
            codes: (n,) — dialogue of each example, from 0 to D - 1.
            sizes: (D,) — examples of each dialogue.
        """
        weights = np.asarray(values, dtype=np.float64)
        return cls(np.bincount(codes, weights=weights, minlength=len(sizes)).astype(np.float64), sizes)

    @classmethod
    def linear(cls, value: float, without: Column) -> Statistic:
        """Return a figure that is no mean, from its values without each dialogue in turn (the jackknife).

        A drawn corpus holds dialogues twice, which brings no new n-gram: Dist-n of it is too low, and says little of
        Dist-n of other dialogues. The jackknife's variance is never too small in expectation (Efron and Stein 1981).

        Args:
            value: the figure on all dialogues.
            without: (D,) — the figure on all dialogues but one.
        """
        count = len(without)
        influence = -(count - 1) * (without - without.mean()) / count
        return cls(influence, np.full(count, 1 / count), value - float(influence.sum()))


def resampled(statistics: Sequence[Statistic], samples: int, seed: int) -> Column:
    """Return every figure on every draw of dialogues, all on the same draws: (samples, number of statistics).

    Memory is that of the result and a few blocks of a million cells, however many dialogues there are. A draw without
    any example that a figure is about has NaN.

    Args:
        statistics: over the same D dialogues.
        samples: how many times D dialogues are drawn.
        seed: of the draws, which depend on nothing but it and D.
    """
    rng, count = np.random.default_rng(seed), len(statistics[0].top)
    bottoms = {id(one.bottom): one.bottom for one in statistics}
    places = {key: len(statistics) + place for place, key in enumerate(bottoms)}
    matrix = np.column_stack([*(one.top for one in statistics), *bottoms.values()])
    below = [places[id(one.bottom)] for one in statistics]
    offsets = np.array([one.offset for one in statistics])
    found = np.empty((samples, len(statistics)))
    chunk = max(1, _CELLS // count)
    for start in range(0, samples, chunk):
        rows = min(chunk, samples - start)
        drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        sums = counts.astype(np.float64) @ matrix
        with np.errstate(invalid="ignore", divide="ignore"):
            found[start : start + rows] = offsets + sums[:, : len(statistics)] / sums[:, below]
    return found


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of a system, or how much one system's differs from another's.

    Args:
        value: the figure, or second minus first.
        low: lower end of the interval; NaN where there is one dialogue, which tells nothing of the spread.
        high: upper end; NaN likewise.
        p_value: two-sided, that the truth is 0; NaN likewise. Not corrected for other tests.
        seed_share: share of the variance that the seeds bring; 0 where no system has several.
    """

    value: float
    low: float
    high: float
    p_value: float
    seed_share: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure of several systems' runs over the same dialogues, and their values on the same draws.

    Args:
        values: a system -> (R,), the figure of each of its runs (seeds).
        draws: a system -> (samples, R), on every draw.
        clusters: D, how many dialogues there are.
        seed: of what is drawn beside the dialogues.
        level: confidence level of all intervals.
    """

    values: Sequence[Column]
    draws: Sequence[Column]
    clusters: int
    seed: int = 0
    level: float = 0.95

    def of(self, system: int) -> Estimate:
        """Return a system's figure: the mean over its runs."""
        return self._estimate([(1.0, system)])

    def difference(self, first: int, second: int) -> Estimate:
        """Return the second system's figure minus the first's."""
        return self._estimate([(1.0, second), (-1.0, first)])

    def _estimate(self, terms: Sequence[tuple[float, int]]) -> Estimate:
        value = float(sum(sign * self.values[system].mean() for sign, system in terms))
        if self.clusters < 2:
            return Estimate(value, float("nan"), float("nan"), float("nan"), 0.0)
        drawn = sum(sign * self.draws[system].mean(axis=1) for sign, system in terms)
        deviations = np.asarray(drawn) - value
        there = np.isfinite(deviations)
        rng = np.random.default_rng([self.seed, 1])
        chi = rng.chisquare(self.clusters - 1, len(deviations))
        deviations = (deviations * np.sqrt(self.clusters / np.maximum(chi, 1e-300)))[there]
        deviations = deviations * self._shared(np.asarray(drawn)[there], [system for _, system in terms], there)
        of_dialogues = float(np.var(deviations))
        error, freedom = seed_error([self.values[system] for _, system in terms])
        if error > 0:
            deviations = deviations + error * rng.standard_t(freedom, len(there))[there]
        scale = _TIE * max(1.0, *(float(np.abs(self.values[system]).max()) for _, system in terms))
        tail = (1 - self.level) / 2
        low, high = map(float, np.quantile(value + deviations, [tail, 1 - tail]))
        total = of_dialogues + error**2
        return Estimate(value, low, high, _p_value(value + deviations, scale), error**2 / total if total else 0.0)

    def _shared(self, drawn: Column, systems: Sequence[int], there: npt.NDArray[np.bool_]) -> float:
        """Return the share of the draws' deviation that all seeds of a system have, from 0 to 1."""
        apart = 0.0
        for system in systems:
            own = self.draws[system][there]
            runs = own.shape[1]
            if runs > 1:
                apart += float((own - own.mean(axis=1, keepdims=True)).var(axis=0).sum()) / (runs - 1) / runs
        whole = float(np.var(drawn))
        return float(np.sqrt(max(0.0, 1 - apart / whole))) if whole > 0 else 1.0


def seed_error(systems: Sequence[Column]) -> tuple[float, float]:
    """Return the standard error that training seeds bring to a sum or difference of systems' means, and its freedom.

    >>> seed_error([np.array([0.1, 0.3, 0.2]), np.array([0.5])])  # the second was trained once: nothing is known of it
    (0.05773502691896257, 2.0)

    Args:
        systems: (R,) each — the figures of a system's runs, one a seed.

    Returns:
        Standard error, and Welch's and Satterthwaite's degrees of freedom; (0, 1) where no system has several runs.
    """
    parts = [(float(values.var(ddof=1)) / len(values), len(values) - 1) for values in systems if len(values) > 1]
    total = sum(part for part, _ in parts)
    if total <= 0:
        return 0.0, 1.0
    return float(np.sqrt(total)), total**2 / sum(part**2 / freedom for part, freedom in parts)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected so that the chance of any false claim among them is what one alone says (Holm 1979).

    >>> holm([0.01, 0.04, 0.03, float("nan")])
    [0.03, 0.06, 0.06, nan]

    Args:
        p_values: of all tests; NaN is no test, is not counted and stays.
    """
    found = np.full(len(p_values), np.nan)
    given = np.asarray(p_values, dtype=np.float64)
    order = [int(place) for place in np.argsort(given, kind="stable") if not np.isnan(given[place])]
    steps = given[order] * np.arange(len(order), 0, -1)
    found[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in found]


def _p_value(drawn: Column, scale: float) -> float:
    """Return twice the smaller share of draws at or beyond 0, the estimate itself counted as one more."""
    below, above = int((drawn <= scale).sum()), int((drawn >= -scale).sum())
    return min(1.0, 2 * (1 + min(below, above)) / (1 + len(drawn)))
