"""Cells: one figure of one system, from one run or from several seeds, with its interval and the names of its runs.

- Several seeds: their mean, and Student's 95% interval of it: mean ± t(0.975, n - 1) s / √n. It tells how far another
  seed would have come out elsewhere, on these dialogues.
- One run: its figure, and where the run kept ranks of single examples, the 95% bootstrap interval over dialogues. It
  tells how far other dialogues would have led elsewhere, with this seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from g2r_lightning.extras import extra

LEVEL = 0.95
Spread = Literal["seeds", "dialogues", ""]


@dataclass(frozen=True)
class Figure:
    """What one run says.

    Args:
        value: the figure.
        low: lower end of its interval over dialogues; ``None`` where there is none.
        high: upper end.
        run: name of the run, or of the file, that it stands in.
        condition: figures of different conditions are never put together: which metric judged, which machine timed.
    """

    value: float
    low: float | None
    high: float | None
    run: str
    condition: str = ""


@dataclass(frozen=True)
class Cell:
    """What a table shows.

    Args:
        value: a figure, or the mean over seeds.
        low: lower end of the 95% interval; ``None`` where there is none.
        high: upper end.
        spread: what the interval is over.
        runs: names of the runs that it comes from.
    """

    value: float
    low: float | None
    high: float | None
    spread: Spread
    runs: tuple[str, ...]


def cell_of(figures: Sequence[Figure]) -> Cell | None:
    """Return the cell of a system's runs, each with another seed; ``None`` without a run.

    >>> cell_of([Figure(1.0, None, None, "a"), Figure(3.0, None, None, "b")]).value
    2.0
    """
    if not figures:
        return None
    runs = tuple(one.run for one in figures)
    if len(figures) == 1:
        only = figures[0]
        return Cell(only.value, only.low, only.high, "" if only.low is None else "dialogues", runs)
    values = np.array([one.value for one in figures])
    half = interval_over_seeds(values.std(ddof=1), len(values))
    mean = float(values.mean())
    return Cell(mean, mean - half, mean + half, "seeds", runs)


def interval_over_seeds(deviation: float, count: int) -> float:
    """Return half the width of Student's 95% interval of a mean.

    Args:
        deviation: standard deviation of the sample (n - 1 in the denominator).
        count: n, at least 2.

    Raises:
        ConfigError: scipy is not installed.
    """
    with extra("studies"):
        from scipy.stats import t
    return float(t.ppf((1 + LEVEL) / 2, count - 1) * deviation / math.sqrt(count))


def of_one_condition(figures: Sequence[Figure]) -> tuple[list[Figure], list[Figure]]:
    """Split figures into those of the commonest condition and the others; ties go to the one that comes first."""
    counts: dict[str, int] = {}
    for one in figures:
        counts[one.condition] = counts.get(one.condition, 0) + 1
    if not counts:
        return [], []
    kept = max(counts, key=counts.__getitem__)
    return [one for one in figures if one.condition == kept], [one for one in figures if one.condition != kept]
