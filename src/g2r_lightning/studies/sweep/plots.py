"""A plot a factor: the metric over the factor's values, with intervals over seeds, in colours that all tell apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from g2r_lightning.extras import extra
from g2r_lightning.paths import atomic_path
from g2r_lightning.studies.sweep.plan import Plan
from g2r_lightning.studies.sweep.space import Factor, point_key, shown
from g2r_lightning.studies.sweep.table import Mean, Row, is_share, plot_name

# Okabe and Ito (2008), without the yellow, which is too pale for lines on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
LOG_SPAN = 8  # values that span more are drawn on a logarithmic axis


def write_plots(rows: Sequence[Row], plan: Plan) -> list[Path]:
    """Write ``<factor>.png`` for every factor into the study's folder; none while no point has a mean.

    Returns:
        The files.
    """
    found = [row for row in rows if row.metric is not None]
    if not found:
        return []
    with extra("studies"):
        from matplotlib.figure import Figure  # without pyplot: no display, no state
    paths = []
    for factor in plan.factors:
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        _draw(figure.add_subplot(), factor, found, plan)
        path = plan.folder / plot_name(factor.key, plan)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150, format="png", metadata={"Software": None})
        paths.append(path)
    return paths


def _draw(axes: Any, factor: Factor, rows: Sequence[Row], plan: Plan) -> None:
    """Draw one factor: a line for each setting of the other factors, or the points alone where those are too many."""
    places, ticks = _places(factor, [row.point[factor.key] for row in rows])
    lines: dict[str, list[tuple[float, Mean]]] = {}
    for row, place in zip(rows, places, strict=True):
        others = {key: value for key, value in row.point.items() if key != factor.key}
        lines.setdefault(point_key(others), []).append((place, row.metric or Mean(math.nan, 0)))
    names = dict(zip(lines, _names(rows, factor, plan), strict=True))
    joined = len(lines) <= len(COLOURS)
    scale = 100.0 if is_share(plan.metric) else 1.0
    if joined:
        width = _dodge(places)
        styles = zip(lines.items(), COLOURS, MARKERS, strict=False)
        for number, ((setting, found), colour, marker) in enumerate(styles):
            shift = (number - (len(lines) - 1) / 2) * width
            found.sort(key=lambda one: one[0])
            _line(axes, found, shift, scale, {"color": colour, "marker": marker, "label": names[setting]})
        if len(lines) > 1:
            axes.legend(
                title=", ".join(name for key, name in plan.names.items() if key != factor.key), fontsize="small"
            )
    else:
        every = sorted(itertools.chain.from_iterable(lines.values()), key=lambda one: one[0])
        _line(axes, every, 0.0, scale, {"color": COLOURS[0], "marker": "o", "linestyle": "none", "alpha": 0.7})
    _label(axes, factor, ticks, rows, plan)


def _line(axes: Any, found: Sequence[tuple[float, Mean]], shift: float, scale: float, style: dict[str, Any]) -> None:
    """Draw means with their intervals; a single seed has a mark alone."""
    means = [scale * mean.value for _, mean in found]
    halves = [0.0 if mean.high is None else scale * (mean.high - mean.value) for _, mean in found]
    axes.errorbar(
        [place + shift for place, _ in found], means, yerr=halves if any(halves) else None,
        capsize=3, markersize=5, linewidth=1.2, **style,
    )  # fmt: skip


def _label(axes: Any, factor: Factor, ticks: dict[float, str], rows: Sequence[Row], plan: Plan) -> None:
    if ticks:
        axes.set_xticks(list(ticks), list(ticks.values()))
    if factor.kind == "log" or _spans(factor):
        axes.set_xlabel(f"{factor.key} (log scale)")
    else:
        axes.set_xlabel(factor.key)
    counts = sorted({row.metric.count for row in rows if row.metric})
    seeds = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    interval = "mean and 95% interval over seeds" if counts[-1] > 1 else "one seed, no interval"
    better = "higher" if plan.direction == "maximize" else "lower"
    axes.set_ylabel(f"{plan.metric}{' (%)' if is_share(plan.metric) else ''}\n{better} is better")
    axes.set_title(f"{plan.name}: {interval}, {seeds}", fontsize="medium")
    axes.grid(axis="y", alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _places(factor: Factor, values: Sequence[Any]) -> tuple[list[float], dict[float, str]]:
    """Return where values stand on the axis, and the axis's ticks: those of a choice are named, a range's are free."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if factor.kind != "choice" or (numeric and not _spans(factor)):
        places = [math.log10(value) if factor.kind == "log" else float(value) for value in values]
        if factor.kind == "choice":
            return places, {float(value): shown(value) for value in sorted(factor.values)}
        ends = [math.floor(math.log10(factor.low)), math.ceil(math.log10(factor.high))] if factor.kind == "log" else []
        return places, {float(end): f"1e{end}" for end in range(ends[0], ends[1] + 1)} if ends else {}
    if numeric:
        return [math.log10(value) for value in values], {math.log10(one): shown(one) for one in sorted(factor.values)}
    order = [shown(value) for value in factor.values]
    return [float(order.index(shown(value))) for value in values], {float(i): name for i, name in enumerate(order)}


def _spans(factor: Factor) -> bool:
    """Whether a choice of numbers is better seen on a logarithmic axis."""
    numbers = [value for value in factor.values if isinstance(value, int | float) and not isinstance(value, bool)]
    if not numbers or len(numbers) < len(factor.values):
        return False
    return min(numbers) > 0 and max(numbers) / min(numbers) >= LOG_SPAN


def _dodge(places: Sequence[float]) -> float:
    """Return how far lines stand apart, so that their intervals do not hide each other."""
    distinct = sorted(set(places))
    gaps = [high - low for low, high in itertools.pairwise(distinct)]
    return 0.06 * min(gaps, default=1.0)


def _names(rows: Sequence[Row], factor: Factor, plan: Plan) -> list[str]:
    """Return the name of each setting of the other factors, in order of appearance."""
    names: dict[str, str] = {}
    for row in rows:
        others = {key: value for key, value in row.point.items() if key != factor.key}
        names.setdefault(point_key(others), ", ".join(shown(value) for value in others.values()) or plan.metric)
    return list(names.values())
