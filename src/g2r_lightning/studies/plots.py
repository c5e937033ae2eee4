"""Plots of a report's tables that read at a glance: every axis has its unit, every point its interval.

Colours are Okabe and Ito's (2008), told apart by readers of every colour vision, and never alone: markers and dashes
differ with them. Each function draws into axes of matplotlib that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from g2r_lightning.studies.report.cells import Cell
from g2r_lightning.studies.report.measures import Measure
from g2r_lightning.studies.report.tables import ANY, Row, Table

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # yellow is pale on white
MARKERS = "osD^vP*X"  # one more than colours: the first 56 of a kind differ
DASHES = ("-", "--", ":", "-.")
OVER = {"seeds": "95% interval over seeds", "dialogues": "95% interval over dialogues", "": ""}


def measure_of(table: Table, key: str) -> Measure:
    """Return a column of a table.

    Raises:
        KeyError: it has no such column.
    """
    return {one.key: one for one in table.measures}[key]


def style(place: int) -> tuple[str, str]:
    """Return the colour and the marker of what comes in this place of a table.

    >>> style(0) == style(7), style(0) == style(56)
    (False, True)
    """
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]


def dots(axes: Any, table: Table, key: str) -> None:
    """Draw a measure of every row that has it, the first on top, with its interval.

    Args:
        axes: of matplotlib.
        table: of a report.
        key: of the measure.
    """
    measure, rows = measure_of(table, key), [row for row in table.rows if key in row.cells]
    for place, row in enumerate(rows):
        cell = row.cells[key]
        low, high = _lengths(cell, measure.scale)
        colour, marker = style(table.rows.index(row))  # the same for every measure of the table
        axes.errorbar(measure.scale * cell.value, place, xerr=[[low], [high]], fmt=marker, color=colour, capsize=3)
    axes.set_yticks(range(len(rows)), [label(row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("\n".join([measure.heading, *_over(rows, key)]))
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)


def lines(axes: Any, table: Table, key: str, x: str, by: Sequence[str]) -> None:
    """Draw a measure over a factor that is a number, a line for each combination of other labels.

    Args:
        axes: of matplotlib.
        table: of a report.
        key: of the measure.
        x: label of the rows that is the horizontal axis.
        by: labels that tell the lines apart.
    """
    measure = measure_of(table, key)
    series: dict[str, list[tuple[float, Cell]]] = {}
    shown = [row for row in table.rows if key in row.cells and _is_number(row.labels.get(x, ""))]
    starts = [row for row in shown if row.labels.get("T") == ANY]  # without a transfer: where its lines begin
    for row in (one for one in shown if one not in starts):
        name = ", ".join(row.labels[one] if one in ("encoder", "method") else f"{one} {row.labels[one]}" for one in by)
        begun = [one for one in starts if _begins(one, row)] if name not in series else []
        series.setdefault(name, []).extend((float(one.labels[x]), one.cells[key]) for one in [*begun, row])
    for place, (name, points) in enumerate(series.items()):
        points.sort(key=lambda point: point[0])
        ends = np.array([_lengths(cell, measure.scale) for _, cell in points]).T
        colour, marker = style(place)
        axes.errorbar(
            [at for at, _ in points], [measure.scale * cell.value for _, cell in points], yerr=ends, capsize=3,
            marker=marker, linestyle=DASHES[place % len(DASHES)], color=colour, label=name,
        )  # fmt: skip
    axes.set_xlabel({"alpha": "alpha, weight of the score transfer", "T": "T, temperature of the teacher's scores",
                     "m": "m, replies of the teacher a context"}.get(x, x))  # fmt: skip
    axes.set_ylabel("\n".join([measure.heading, *_over(table.rows, key)]))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    if series:
        axes.legend(frameon=False)


def trade_off(axes: Any, table: Table, x: str, y: str) -> None:
    """Draw one measure against another, a point a row; a horizontal axis in milliseconds is logarithmic.

    A row without the other measure (how well a teacher ranks is not told of its decoding) is a vertical line.

    Args:
        axes: of matplotlib.
        table: of a report.
        x: key of the measure on the horizontal axis.
        y: key of the other.
    """
    across, up = measure_of(table, x), measure_of(table, y)
    rows = [row for row in table.rows if x in row.cells and y in row.cells]
    for row in (one for one in table.rows if x in one.cells):
        colour, marker = style(table.rows.index(row))
        if y not in row.cells:
            axes.axvline(across.scale * row.cells[x].value, color=colour, linestyle="--", label=label(row))
            continue
        low, high = _lengths(row.cells[y], up.scale)
        axes.errorbar(
            across.scale * row.cells[x].value, up.scale * row.cells[y].value, yerr=[[low], [high]],
            fmt=marker, color=colour, capsize=3, label=label(row),
        )  # fmt: skip
    if "ms" in across.heading:
        axes.set_xscale("log")
        axes.set_xlabel(f"{across.heading}, logarithmic")
    else:
        axes.set_xlabel(across.heading)
    axes.set_ylabel("\n".join([up.heading, *_over(rows, y)]))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    if rows:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def intervals(axes: Any, series: Mapping[str, Mapping[str, tuple[float, float, float]]], heading: str) -> None:
    """Draw figures with their intervals, a row a name, the first on top; marks tell the series apart.

    Args:
        axes: of matplotlib.
        series: name -> row -> figure, lower and upper end of its interval; NaN for an end that nobody knows.
        heading: of the horizontal axis, with the unit and what the interval is over.
    """
    names = list(dict.fromkeys(name for found in series.values() for name in found))
    step = 0.8 / max(len(series), 5)
    for place, (name, found) in enumerate(series.items()):
        values, lows, highs = np.array(list(found.values())).T
        ends = np.nan_to_num([values - lows, highs - values]).clip(0)
        colour, marker = style(place)
        at = [names.index(row) + step * (place - (len(series) - 1) / 2) for row in found]
        axes.errorbar(values, at, xerr=ends, fmt=marker, color=colour, capsize=3, label=name)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(heading)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    if len(series) > 1:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def embedding_map(axes: Any, points: Mapping[str, npt.NDArray[np.floating[Any]]], shares: Sequence[float]) -> None:
    """Draw points of a plane by kind.

    Args:
        axes: of matplotlib.
        points: kind -> (n, 2) coordinates.
        shares: part of the variance that each axis shows, 0 to 1.
    """
    for place, (name, found) in enumerate(points.items()):
        colour, marker = style(place)
        axes.scatter(found[:, 0], found[:, 1], s=14, alpha=0.6, marker=marker, color=colour, label=name)
    axes.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"second principal component ({shares[1]:.0%} of the variance)")
    axes.legend(frameon=False)


def label(row: Row) -> str:
    """Return what a row is called: its system, or its labels, each with its name where it needs one.

    >>> label(Row({"encoder": "bi-encoder", "method": "DM-LL", "m": "5"}, {}))
    'bi-encoder, DM-LL, m 5'
    """
    bare = ("system", "encoder", "method", "response set", "negatives")
    return ", ".join(value if name in bare else f"{name} {value}" for name, value in row.labels.items())


def _lengths(cell: Cell, scale: float) -> tuple[float, float]:
    """Return how far the interval reaches below and above the figure, as shown; 0 without one."""
    if cell.low is None or cell.high is None:
        return 0.0, 0.0
    return scale * max(cell.value - cell.low, 0.0), scale * max(cell.high - cell.value, 0.0)


def _over(rows: Sequence[Row], key: str) -> list[str]:
    """Return a line that says what the intervals are over."""
    kinds = dict.fromkeys(OVER[row.cells[key].spread] for row in rows if key in row.cells)
    return [f"({' or '.join(kind for kind in kinds if kind)})"] if any(kinds) else []


def _begins(start: Row, row: Row) -> bool:
    """Whether a system without a transfer is another one at weight 0: D of DM, the baseline of M alone."""
    with_data = row.labels["method"].startswith("D")
    return start.labels["encoder"] == row.labels["encoder"] and (start.labels["method"] == "D") == with_data


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()
