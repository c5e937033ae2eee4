"""How sure a figure is: percentile intervals by resampling whole dialogues (Efron and Tibshirani 1993, chapter 13).

The turns of one dialogue are not independent: taking them for so makes intervals too narrow. Hence *dialogues* are
drawn with replacement, each with all its turns, and the figure is computed anew as the sum of the drawn dialogues'
values over the number of their turns. Two systems are compared on the same draws, which removes what both share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from g2r_lightning.metrics.resampling import Statistic, resampled


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, or a difference of means, and its confidence interval.

    Args:
        estimate: the figure over all examples.
        low: lower end; NaN where there is one cluster only, which tells nothing of the spread.
        high: upper end; NaN likewise.
        level: confidence level, between 0 and 1.
        samples: how many times the clusters were drawn.
        clusters: how many clusters (dialogues) there are.
    """

    estimate: float
    low: float
    high: float
    level: float
    samples: int
    clusters: int


def cluster_bootstrap(
    values: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    samples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the mean of per-example values with a percentile interval over resampled clusters.

    Args:
        values: (n,) finite — one value an example: a hit, a reciprocal rank, a loss (tensors on the CPU are welcome).
        clusters: (n,) — what each example belongs to, usually ``Example.dialogue_id``; strings or integers.
        samples: how many times the clusters are drawn.
        level: confidence level.
        seed: of the draws; the interval depends on nothing else.

    Raises:
        ValueError: no values, shapes that disagree, a NaN or infinite value, or a setting out of range.
    """
    if samples < 1 or not 0 < level < 1:
        raise ValueError(f"samples={samples}, level={level}: at least 1 sample and a level between 0 and 1 are needed")
    column = _column(values, "values")
    codes = _codes(clusters, len(column))
    sums = np.asarray(np.bincount(codes, weights=column), dtype=np.float64)
    sizes = np.bincount(codes).astype(np.float64)
    low, high = float("nan"), float("nan")
    if len(sums) > 1:
        tail = (1 - level) / 2
        low, high = map(float, np.quantile(resampled([Statistic(sums, sizes)], samples, seed), [tail, 1 - tail]))
    return Interval(float(column.mean()), low, high, level, samples, len(sums))


def paired_bootstrap(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    samples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return mean(b) - mean(a) with its interval; both systems are resampled alike.

    A difference of means over the same draw is the mean of the differences, so this is :func:`cluster_bootstrap` of
    ``b - a``. The interval lies above 0 where ``b`` is better beyond what the choice of dialogues explains.

    Args:
        a: (n,) finite — the values of the first system.
        b: (n,) finite — the values of the second system on the same examples in the same order.
        clusters: (n,) — what each example belongs to.
        samples: how many times the clusters are drawn.
        level: confidence level.
        seed: of the draws.

    Raises:
        ValueError: as :func:`cluster_bootstrap`, or ``a`` and ``b`` differ in length.
    """
    first, second = _column(a, "a"), _column(b, "b")
    if len(first) != len(second):
        raise ValueError(f"a has {len(first)} values, b {len(second)}: both need the same examples in the same order")
    return cluster_bootstrap(second - first, clusters, samples=samples, level=level, seed=seed)


def _column(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or not len(column):
        raise ValueError(f"{name} has shape {column.shape}; expected one value an example, at least one")
    if not np.isfinite(column).all():
        raise ValueError(f"{name}[{int(np.flatnonzero(~np.isfinite(column))[0])}] is NaN or infinite")
    return column


def _codes(clusters: npt.ArrayLike, length: int) -> npt.NDArray[np.int64]:
    """Number the clusters from 0: (n,)."""
    names = np.asarray(clusters)
    if names.shape != (length,):
        raise ValueError(f"clusters has shape {names.shape}; expected one a value: ({length},)")
    return np.unique(names, return_inverse=True)[1]
