"""A latency study as figures, a table, a Markdown page and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from g2r_lightning.extras import extra
from g2r_lightning.inference.model_card import table as markdown
from g2r_lightning.inference.stopwatch import STAGES
from g2r_lightning.metrics import reply_diversity
from g2r_lightning.paths import atomic_path
from g2r_lightning.studies.latency import OTHER, Call, Summary

LATENCIES = {
    "p50": "p50_ms", "p95": "p95_ms", "p99": "p99_ms", "mean": "mean_ms", "replies/s": "replies_per_second",
    "length": "mean_length", "times": "times_first",
}  # fmt: skip
PARTS = {stage: f"{stage}_p50_ms" for stage in (*STAGES, OTHER)}
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
"""Okabe and Ito (2008): told apart by readers of every colour vision."""


def figures(summaries: Sequence[Summary], calls: Sequence[Call]) -> dict[str, float]:
    """Return the study flat, ``<system>/<figure>``: milliseconds, replies a second, reply length in tokens.

    ``times_first`` is a system's mean latency over that of the first system.
    """
    flat: dict[str, float] = {}
    for one in summaries:
        length = reply_diversity(call.reply for call in calls if call.system == one.system)["mean_length"]
        own = {
            "calls": float(one.calls),
            **{f"{name}_ms": 1000 * getattr(one, name) for name in ("mean", "p50", "p95", "p99")},
            "replies_per_second": one.replies_per_second,
            **{f"{stage}_p50_ms": 1000 * seconds for stage, seconds in one.stages.items()},
            "mean_length": length,
            "times_first": one.mean / summaries[0].mean,
        }
        flat |= {f"{one.system}/{name}": value for name, value in own.items()}
    return flat


def rows_of(found: Mapping[str, float], systems: Sequence[str], columns: Mapping[str, str]) -> list[list[str]]:
    """Return a table's cells, a row a system that has any: its name, and one cell a column.

    Args:
        found: of :func:`figures`.
        systems: in the order of the rows.
        columns: heading -> figure, :data:`LATENCIES` or :data:`PARTS`.
    """
    rows = [[name, *(_number(found.get(f"{name}/{key}")) for key in columns.values())] for name in systems]
    return [row for row in rows if any(row[1:])]


def tables(title: str, found: Mapping[str, float], systems: Sequence[str]) -> list[Table]:
    """Return the tables for a terminal: latencies, and the stages of those systems that have them."""
    explained = ("ms; length in tokens; times: mean over that of the first system", "ms, medians")
    made = []
    for columns, caption in zip((LATENCIES, PARTS), explained, strict=True):
        one = Table(title=title, caption=caption)
        one.add_column("", overflow="fold")
        for heading in columns:
            one.add_column(heading, justify="right", no_wrap=True)
        for row in rows_of(found, systems, columns):
            one.add_row(*row)
        made.append(one)
    return made


def write_markdown(
    path: Path, found: Mapping[str, float], systems: Sequence[str], conditions: Mapping[str, Any], plot: str | None
) -> None:
    """Write the page: tables, plot, and under which conditions it was measured.

    Args:
        path: of the page.
        found: of :func:`figures`.
        systems: in the order of the rows.
        conditions: name -> value, a line each; nothing of those that are ``None``.
        plot: file name of the plot, if there is one.
    """
    explained = (
        "Milliseconds a reply at batch size 1, systems in turns on the same contexts; `length` is tokens a reply, "
        "`times` the mean latency over that of the first system."
    )
    parts = [
        "# Latency",
        explained,
        markdown(["", *LATENCIES], rows_of(found, systems, LATENCIES), rule="--:"),
        "Where the time goes, medians in milliseconds:",
        markdown(["", *PARTS], rows_of(found, systems, PARTS), rule="--:"),
        *([f"![Latency of each system]({plot})"] if plot else []),
        "\n".join(f"- {name}: {value}" for name, value in conditions.items() if value is not None),
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_plot(path: Path, summaries: Sequence[Summary]) -> None:
    """Draw latencies (from p50 to p99, logarithmic), and the stages of those systems that have them.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    with extra("notebooks"):
        from matplotlib.figure import Figure
    staged = [one for one in summaries if one.stages]
    heights = [len(summaries) + 1, len(staged) + 1] if staged else [1]
    figure = Figure(figsize=(8, 1.5 + 0.45 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_percentiles(axes[0], summaries)
    if staged:
        _draw_stages(axes[1], staged)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _draw_percentiles(axis: Any, summaries: Sequence[Summary]) -> None:
    for row, one in enumerate(summaries):
        axis.plot([1000 * one.p50, 1000 * one.p99], [row, row], color="0.6", linewidth=2, zorder=1)
    for (name, marker), colour in zip({"p50": "o", "p95": "s", "p99": "^"}.items(), PALETTE, strict=False):
        values = [1000 * getattr(one, name) for one in summaries]
        axis.scatter(values, range(len(values)), marker=marker, color=colour, label=name, zorder=2)
    axis.set_xscale("log")
    axis.set_xlabel("latency of one reply (ms, logarithmic)")
    _name_rows(axis, summaries)


def _draw_stages(axis: Any, summaries: Sequence[Summary]) -> None:
    left = [0.0] * len(summaries)
    for stage, colour in zip((*STAGES, OTHER), PALETTE, strict=True):
        widths = [1000 * one.stages.get(stage, 0.0) for one in summaries]
        if any(widths):
            axis.barh(range(len(widths)), widths, left=left, color=colour, edgecolor="white", label=stage)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    axis.set_xlabel("median time of each stage (ms)")
    _name_rows(axis, summaries)


def _name_rows(axis: Any, summaries: Sequence[Summary]) -> None:
    axis.set_yticks(range(len(summaries)), [one.system for one in summaries])
    axis.invert_yaxis()
    axis.set_ylabel("system")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _number(value: float | None) -> str:
    """Return three significant digits, without an exponent; nothing for nothing."""
    if value is None:
        return ""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"
