"""What a study found, point by point: means over seeds with Student's t intervals, as CSV and Markdown.

How the table stays honest: an interval tells the spread over seeds (initialisation, draws, order), on the same data; a
single run has none. A point's mean is over all of its seeds that finished, and a seed that did not is counted in the
row. A pruner compares points by their first seed alone; that seed is left out of the means, since it survived a choice,
and the other seeds of a point run in full or not at all. So no seed is in or out of a mean for how well it did.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from g2r_lightning.extras import extra
from g2r_lightning.studies.sweep.plan import Plan
from g2r_lightning.studies.sweep.space import Point, point_key, shown
from g2r_lightning.studies.sweep.state import OPEN, Run

LEVEL = 0.95
TOGETHER = "all/"


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Args:
        value: the mean.
        count: of seeds.
        low: of the 95% interval; ``None`` for a single seed.
        high: of the same.
    """

    value: float
    count: int
    low: float | None = None
    high: float | None = None


@dataclass
class Row:
    """A point's row.

    Args:
        point: its settings.
        metric: what decides; ``None`` where no seed counts yet.
        figures: test figures by key.
        states: how many of its runs are in which state.
        notes: what a reader has to know of it.
    """

    point: Point
    metric: Mean | None = None
    figures: dict[str, Mean] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def mean_of(values: Sequence[float]) -> Mean:
    """Return mean and Student's t interval of values of independent seeds.

    >>> mean_of([0.5])
    Mean(value=0.5, count=1, low=None, high=None)
    >>> found = mean_of([1.0, 2.0, 3.0])
    >>> f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
    '2.000 [-0.484, 4.484]'
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Mean(mean, count)
    with extra("studies"):
        from scipy.stats import t
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(t.ppf((1 + LEVEL) / 2, count - 1)) * deviation / math.sqrt(count)
    return Mean(mean, count, mean - half, mean + half)


def rows_of(runs: Sequence[Run], plan: Plan) -> list[Row]:
    """Return a row a point, in the order of the points.

    Args:
        runs: all runs of the study.
        plan: the study.
    """
    by_point: dict[str, list[Run]] = {}
    for run in runs:
        by_point.setdefault(point_key(run.point), []).append(run)
    return [_row(own, plan) for own in by_point.values()]


def best_row(rows: Sequence[Row], plan: Plan) -> Row | None:
    """Return the row with the best mean among those with the most seeds: a lucky single seed is no winner."""
    most = max((row.metric.count for row in rows if row.metric is not None), default=0)
    full = [row for row in rows if row.metric is not None and row.metric.count == most]
    sign = 1 if plan.direction == "maximize" else -1
    return max(full, key=lambda row: sign * row.metric.value if row.metric else 0.0, default=None)


def points_csv(rows: Sequence[Row], plan: Plan) -> str:
    """Return the rows as CSV: factors by their full keys, mean, interval and n of every figure, unrounded."""
    figures = list(dict.fromkeys(key for row in rows for key in row.figures))
    states = list(dict.fromkeys(state for row in rows for state in row.states))
    found = []
    for row in rows:
        line: dict[str, Any] = {key: csv_value(value) for key, value in row.point.items()}
        line |= _mean_columns(plan.metric, row.metric)
        for key in figures:
            line |= _mean_columns(f"test/{key}", row.figures.get(key))
        found.append(line | {f"runs {state}": row.states.get(state, 0) for state in states})
    return _csv(found)


def runs_csv(runs: Sequence[Run], plan: Plan) -> str:
    """Return every run as CSV: point, seed, state, metric, test figures, folder, and why where it failed."""
    figures = list(dict.fromkeys(key for run in runs for key in run.facts.get("figures", {})))
    found = []
    for run in runs:
        state = run.state(plan.settings.retries)
        done = state == "finished"
        line: dict[str, Any] = {"run": run.name, **{key: csv_value(value) for key, value in run.point.items()}}
        line |= {"seed": run.seed, "state": state, "attempts": sum(one.state.name != "WAITING" for one in run.attempts)}
        line |= {plan.metric: run.last.value if done else "", "seconds": run.facts.get("seconds", "")}
        line |= {f"test/{key}": run.facts.get("figures", {}).get(key, "") if done else "" for key in figures}
        found.append(line | {"reason": run.facts.get("reason", "") if state in ("failed", "pruned", "retry") else ""})
    return _csv(found)


def markdown(rows: Sequence[Row], runs: Sequence[Run], plan: Plan, labels: Mapping[str, str]) -> str:
    """Return the study as a page.

    Args:
        rows: its points.
        runs: its runs.
        plan: the study.
        labels: figure -> its name in the table, for those test figures that are shown.
    """
    figures = [key for key in labels if any(f"{TOGETHER}{key}" in row.figures for row in rows)]
    head = [*plan.names.values(), "n", plan.metric, *(f"test: {labels[key]}" for key in figures), ""]
    lines = [f"# {plan.name}", "", *_about(plan, runs), "", _line(head)]
    lines.append(_line(["---"] * len(plan.names) + ["---:"] * (len(head) - len(plan.names) - 1) + ["---"]))
    best = best_row(rows, plan) if len(rows) > 1 else None
    for row in rows:
        cells = [shown(row.point[key]) for key in plan.names]
        cells += [str(row.metric.count if row.metric else 0), mean_text(row.metric, plan.metric)]
        cells += [mean_text(row.figures.get(f"{TOGETHER}{key}"), key) for key in figures]
        lines.append(_line([*cells, "; ".join((["**best**"] if row is best else []) + row.notes)]))
    failed = [run for run in runs if run.state(plan.settings.retries) == "failed"]
    if failed:
        lines += ["", "Failed, after every attempt that was due:", ""]
        lines += [f"- `{run.name}`: {run.facts.get('reason', 'unknown')}" for run in failed]
    plots = [f"![{key}]({plot_name(key, plan)})" for key in plan.names]
    return "\n".join([*lines, "", *plots, ""])


def mean_text(mean: Mean | None, key: str) -> str:
    """Return mean and interval as a cell shows them: shares in percent, the rest as they are."""
    if mean is None:
        return ""
    share = is_share(key)
    scale, digits, unit = (100.0, 1, "%") if share else (1.0, 3, "")
    text = f"{scale * mean.value:.{digits}f}{unit}"
    if mean.low is None or mean.high is None:
        return text
    return f"{text} [{scale * mean.low:.{digits}f}, {scale * mean.high:.{digits}f}]"


def is_share(key: str) -> bool:
    """Whether a figure is a share between 0 and 1, which is shown in percent."""
    name = key.rsplit("/", 1)[-1]
    return any(word in name for word in ("hits_at", "recall_at", "mrr", "distinct_", "_share", "accuracy"))


def plot_name(key: str, plan: Plan) -> str:
    """Return the file of a factor's plot."""
    return f"{plan.names[key].replace('/', '-')}.png"


def csv_value(value: Any) -> Any:
    """Return a value as a CSV cell that reads back: scalars plain, ``null`` and the rest as JSON."""
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else shown(value)


def _row(runs: Sequence[Run], plan: Plan) -> Row:
    states = [run.state(plan.settings.retries) for run in runs]
    row = Row(runs[0].point, states={state: states.count(state) for state in dict.fromkeys(states)})
    counted = [run for run, state in zip(runs, states, strict=True) if state == "finished" and not run.scout]
    if counted:
        row.metric = mean_of([float(run.last.value) for run in counted])
        of_all = [run.facts.get("figures", {}) for run in counted]
        for key in of_all[0]:
            if all(key in figures for figures in of_all):
                row.figures[key] = mean_of([figures[key] for figures in of_all])
    for run, state in zip(runs, states, strict=True):
        if state == "pruned":
            row.notes.append(str(run.facts.get("reason", "pruned")))
    if states.count("failed"):
        row.notes.append(f"{states.count('failed')} failed")
    unfinished = sum(state in OPEN for state in states)
    if unfinished:
        row.notes.append(f"{unfinished} not finished")
    return row


def _about(plan: Plan, runs: Sequence[Run]) -> list[str]:
    """Return what a reader of the table has to know."""
    done = sum(run.state(plan.settings.retries) == "finished" for run in runs)
    points = len({point_key(run.point) for run in runs})
    better = "higher" if plan.direction == "maximize" else "lower"
    said = []
    said.append(
        f"{done} of {len(runs)} runs finished: {points} points, seeds {', '.join(map(str, plan.seeds))}; points by "
        f"{plan.sampler}. `{plan.metric}` ({better} is better) is the best value of a run's validations; test figures "
        "are those of its best checkpoint, over all test sets together."
    )
    said.append(
        f"Mean over n seeds with its {LEVEL:.0%} interval (Student's t); n = 1 has none. The interval is of the spread "
        "over seeds on these data, not over dialogues."
    )
    if points > 1:
        said[-1] += (
            " The best of several points looks better by the metric that chose it than it is: compare it by the test "
            "figures, which chose nothing."
        )
    if plan.prunes:
        said.append(
            f"Pruner: {plan.settings.pruner}. Points were stopped by their first seed ({plan.seeds[0]}), which is "
            "therefore in no mean; the other seeds of a point ran in full or not at all."
        )
    return "\n\n".join(said).split("\n")


def _mean_columns(name: str, mean: Mean | None) -> dict[str, Any]:
    if mean is None:
        return {name: "", f"{name} low": "", f"{name} high": "", f"{name} n": 0}
    low, high = (("" if end is None else end) for end in (mean.low, mean.high))
    return {name: mean.value, f"{name} low": low, f"{name} high": high, f"{name} n": mean.count}


def _csv(lines: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else ["run"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
