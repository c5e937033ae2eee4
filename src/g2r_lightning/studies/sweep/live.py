"""A study while it runs: a table that is redrawn in a terminal, a line a run everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from g2r_lightning.studies.sweep.plan import Plan
from g2r_lightning.studies.sweep.queue import Queue, Task
from g2r_lightning.studies.sweep.space import point_key, shown
from g2r_lightning.studies.sweep.state import OPEN, Run
from g2r_lightning.studies.sweep.table import Row, mean_text, rows_of
from g2r_lightning.studies.sweep.trial import Outcome

REDRAWN_PER_SECOND = 1.0
HEAD_LINES = 8  # of a terminal that the table's head, foot and title take


class Display:
    """Say what happens.

    Args:
        queue: of the study.
    """

    def __init__(self, queue: Queue) -> None:
        self.queue, self.plan = queue, queue.plan
        self.stream = sys.stdout
        self.console = Console(file=self.stream)
        self.live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the table while the block runs, where there is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with Live(
            console=self.console, get_renderable=self._table, refresh_per_second=REDRAWN_PER_SECOND,
            redirect_stdout=False, redirect_stderr=False, transient=True,
        ) as self.live:  # fmt: skip
            yield
        self.live = None

    def begin(self, task: Task) -> None:
        """A run begins."""
        if self.live is None:
            again = f" (attempt {task.attempt})" if task.attempt > 1 else ""
            self._say(f"{self._count()} {task.name}{again}: begins")

    def end(self, task: Task, outcome: Outcome) -> None:
        """A run has ended."""
        if self.live is None:
            found = {
                "COMPLETE": f"{self.plan.metric} {outcome.value:.4g}" if outcome.value is not None else "",
                "PRUNED": outcome.reason,
                "FAIL": f"failed: {outcome.reason}",
            }[outcome.state]
            self._say(f"{self._count()} {task.name}: {found}, {outcome.seconds:.0f} s")

    def wait(self, running: Sequence[Run]) -> None:
        """Nothing is left to take, but others are still at work."""
        if self.live is None:
            names = ", ".join(run.name for run in running)
            self._say(f"waiting for what other processes run: {names}; Ctrl-C leaves it to them")

    def _say(self, line: str) -> None:
        self.stream.write(f"{line}\n")
        self.stream.flush()

    def _count(self) -> str:
        runs = self.queue.runs()
        done = sum(run.state(self.plan.settings.retries) not in OPEN for run in runs)
        return f"[{done}/{max(len(runs), self.plan.trials * len(self.plan.seeds))}]"

    def _table(self) -> Table:
        return live_table(self.queue.runs(), self.plan, self.console.height - HEAD_LINES)


def live_table(runs: Sequence[Run], plan: Plan, height: int) -> Table:
    """Return the study as it stands: a row a point, those at work first where the terminal is too low for all.

    Args:
        runs: of the study.
        plan: the study.
        height: rows that fit.
    """
    retries = plan.settings.retries
    states = [run.state(retries) for run in runs]
    by_point: dict[str, list[Run]] = {}
    for run in runs:
        by_point.setdefault(point_key(run.point), []).append(run)
    rows = list(zip(rows_of(runs, plan), by_point.values(), strict=True))
    count = {state: states.count(state) for state in dict.fromkeys(states)}
    table = Table(title=f"{plan.name}: " + ", ".join(f"{number} {state}" for state, number in count.items()))
    for name in plan.names.values():
        table.add_column(name)
    for name in ("seeds", plan.metric, "now"):
        table.add_column(name, justify="left" if name == "now" else "right")
    busy = sorted(rows, key=lambda one: not any(run.state(retries) == "running" for run in one[1]))
    fitting = busy[: max(height, 1)] if len(rows) > height else rows
    for row, own in fitting:
        table.add_row(*(shown(row.point[key]) for key in plan.names), *_cells(row, own, plan))
    if len(rows) > len(fitting):
        table.caption = f"{len(rows) - len(fitting)} more points"
    return table


def _cells(row: Row, runs: Sequence[Run], plan: Plan) -> tuple[str, str, str]:
    """Return how many seeds are done, their mean, and what is at work."""
    done = row.states.get("finished", 0)
    now = []
    for run in runs:
        if run.state(plan.settings.retries) == "running":
            progress = run.facts.get("progress")
            so_far = f" epoch {progress['epoch']}: {progress['value']:.4g}" if progress else ""
            now.append(f"seed {run.seed}{so_far}")
    return f"{done}/{len(runs)}", mean_text(row.metric, plan.metric), "; ".join([*now, *row.notes])
