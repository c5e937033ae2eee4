"""``sweep``: run an experiment at many points and seeds, and tell what varied with what.

Each run is what ``fit`` with the point's flags leaves, in ``<run.root>/<study>/<point>``. Any number of processes may
run the same command at once and share the work; a command that is given again goes on.
"""

from __future__ import annotations

import gc
import importlib
import logging
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import yaml
from lightning.pytorch import Callback
from rich.console import Console
from rich.table import Table

from g2r_lightning.config_errors import composed
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.extras import extra
from g2r_lightning.paths import alone_in, atomic_path
from g2r_lightning.runs import RunFolder
from g2r_lightning.sections import SweepSettings
from g2r_lightning.studies.sweep.live import Display
from g2r_lightning.studies.sweep.plan import Plan, make_plan
from g2r_lightning.studies.sweep.plots import write_plots
from g2r_lightning.studies.sweep.queue import Queue
from g2r_lightning.studies.sweep.space import flags, read_assignment, shown
from g2r_lightning.studies.sweep.state import Run
from g2r_lightning.studies.sweep.storage import open_study
from g2r_lightning.studies.sweep.table import Row, best_row, markdown, mean_text, points_csv, rows_of, runs_csv
from g2r_lightning.studies.sweep.trial import run_task
from g2r_lightning.summary import LABELS

log = logging.getLogger(__name__)
SECTION = "sweep"
ASSIGNED = ("grid", "random")
BARE = ("dry_run", "retry_failed")
TESTED = ("hits_at_1_of_20", "mrr_of_20", "recall_at_10", "distinct_2")  # columns of the page; the CSV has all
SAME_ERRORS = 3  # runs that fail in one way, one after the other, before the rest are left alone
POLL_SECONDS = 2.0


def sweep(arguments: Sequence[str]) -> None:
    """Run a study, or take part in it.

    Raises:
        G2RError: the settings, the experiment or the study's storage cannot be used; or a run failed for good, which is
            told when the others are done.
    """
    words = long_flags(arguments)
    with _seeding_unsaid():
        cli = ExperimentCLI("sweep", words, ("data", "model"))
    settings = SweepSettings(**vars(cli.config.sweep))
    shared = [word for word in words if not word.startswith(f"--{SECTION}.")]
    run = cli.run_settings
    plan = make_plan(settings, shared, yaml.safe_load(cli.saved_config()), (run.name, run.root))
    check_points(plan)
    if settings.dry_run:
        _print_points(plan)
        return
    with extra("studies"):  # all of it before the work, not behind it
        import matplotlib  # noqa: F401
        import optuna  # noqa: F401
        import scipy.stats  # noqa: F401
    importlib.import_module("g2r_lightning.commands.fit")  # what it logs with is there before a run
    queue = Queue(open_study(plan), plan)
    try:
        _work(queue)
    finally:
        report(queue)
    runs = queue.runs()
    failed = [run for run in runs if run.state(settings.retries) == "failed"]
    if failed:
        raise G2RError(
            f"{len(failed)} of {len(runs)} runs failed for good, as told above; after mending the cause, the same "
            "command with --retry_failed tries them again"
        )
    if queue.exhausted:
        points = len(runs) // len(plan.seeds)
        raise ConfigError(
            f"trials={plan.trials}: {points} points ran, and TPE found no other one: a range is so narrow that its "
            "values are the same to four digits; widen it, or lower the number"
        )


def long_flags(arguments: Sequence[str]) -> list[str]:
    """Return flags with the short ones of this command written as keys of the section ``sweep``.

    >>> long_flags(["-c", "x.yaml", "--seeds", "3", "--dry_run", "--model.loss.alpha=0"])
    ['-c', 'x.yaml', '--model.loss.alpha=0', '--sweep.seeds=3', '--sweep.dry_run=true']

    Raises:
        ConfigError: ``--grid`` or ``--random`` is no assignment, or names a key twice.
    """
    names = [field.name for field in fields(SweepSettings)]
    assigned: dict[str, dict[str, Any]] = {}
    others: list[str] = []
    own: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in names:
            others.append(word)
            continue
        if not equals:
            value = "true" if name in BARE else next(words, "")
        if name not in ASSIGNED:
            own.append(f"--{SECTION}.{name}={value}")
            continue
        key, values = read_assignment(name, value)
        if key in assigned.setdefault(name, {}):
            raise ConfigError(f"--{name} {key} is given twice; list all of its values in one")
        assigned[name][key] = values
    for name, found in assigned.items():
        section = composed(others).get(SECTION)
        below = section.get(name) if isinstance(section, dict) else None
        merged = {**(below if isinstance(below, dict) else {}), **found}
        text = yaml.safe_dump(merged, default_flow_style=True, width=10**9, sort_keys=False)
        own.append(f"--{SECTION}.{name}={text.strip()}")
    return [*others, *own]


def check_points(plan: Plan) -> None:
    """Parse the experiment once with every value, so that a misspelt key is told before anything runs.

    Raises:
        ConfigError: names the key, and the nearest that is known.
    """
    first = {factor.key: factor.examples()[0] for factor in plan.factors}
    tried: list[dict[str, Any]] = []
    for factor in plan.factors:
        for value in factor.examples():
            point = {**first, factor.key: value}
            if point in tried:
                continue
            tried.append(point)
            try:
                with _seeding_unsaid():
                    ExperimentCLI("fit", [*plan.arguments, *flags(point)], ("data", "model"))
            except ConfigError as error:
                raise ConfigError(f"at {factor.key}={shown(value)}: {error}") from error


def report(queue: Queue) -> None:
    """Write tables and plots of what there is into the study's folder, and print the table."""
    plan = queue.plan
    runs = queue.runs()
    rows = rows_of(runs, plan)
    if not any(run.attempts for run in runs):
        return
    labels = {key: LABELS[key] for key in TESTED}
    pages = {
        "points.csv": points_csv(rows, plan),
        "runs.csv": runs_csv(runs, plan),
        "study.md": markdown(rows, runs, plan, labels),
    }
    with alone_in(plan.folder, wait=True):
        for name, text in pages.items():
            with atomic_path(plan.folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        plots = write_plots(rows, plan)
    _print_report(rows, runs, plan)
    written = ", ".join([*pages, *(path.name for path in plots)])
    Console().print(f"study: {plan.folder}  ({written})", highlight=False, soft_wrap=True)


def _print_report(rows: Sequence[Row], runs: Sequence[Run], plan: Plan) -> None:
    """Print the table, and which runs failed for good."""
    table = Table(title=f"{plan.name}: mean [95% interval over seeds]")
    for name in [*plan.names.values(), "n", plan.metric, "test hits@1/20", ""]:
        table.add_column(name, justify="right" if name in ("n", plan.metric, "test hits@1/20") else "left")
    best = best_row(rows, plan)
    for row in rows:
        table.add_row(
            *(shown(row.point[key]) for key in plan.names), str(row.metric.count if row.metric else 0),
            mean_text(row.metric, plan.metric), mean_text(row.figures.get("all/hits_at_1_of_20"), "hits_at_1_of_20"),
            "; ".join((["best"] if row is best and len(rows) > 1 else []) + row.notes),
        )  # fmt: skip
    console = Console()
    console.print(table)
    for run in runs:
        if run.state(plan.settings.retries) == "failed":
            reason = run.facts.get("reason")
            console.print(f"failed: {run.name}: {reason}", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _seeding_unsaid() -> Iterator[None]:
    """Parse without Lightning's "Seed set to": nothing is drawn here."""
    said = logging.getLogger("lightning.fabric.utilities.seed")
    said.disabled, before = True, said.disabled
    try:
        yield
    finally:
        said.disabled = before


def _work(queue: Queue) -> None:
    """Take runs until none is left, here or in other processes."""
    display = Display(queue)
    errors: list[str] = []
    waited = False
    with display.shown():
        while True:
            task = queue.take()
            if task is None:
                running = [run for run in queue.runs() if run.state(queue.plan.settings.retries) == "running"]
                if not running:
                    return
                if not waited:
                    display.wait(running)
                waited = True
                time.sleep(POLL_SECONDS)
                continue
            waited = False
            display.begin(task)
            outcome = run_task(queue, task, _fit)
            display.end(task, outcome)
            # the same words, whatever the numbers: a message may quote the point's own values
            errors = [*errors, re.sub(r"[\d.]+", "", outcome.reason.replace(task.name, ""))] if outcome.final else []
            if len(errors) >= SAME_ERRORS and len(set(errors[-SAME_ERRORS:])) == 1:
                raise ConfigError(
                    f"{SAME_ERRORS} runs failed one after the other by the same fault: {outcome.reason}\n"
                    "Mend it, and give the same command with --retry_failed"
                )


def _fit(arguments: Sequence[str], callbacks: Sequence[Callback]) -> RunFolder:
    """Run ``fit``; what the trainer refuses is a fault of the settings, as on the command line."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from g2r_lightning.commands.fit import fit

    try:
        return fit(arguments, callbacks)
    except MisconfigurationException as error:
        raise ConfigError(f"the trainer refuses its settings: {error}") from error
    finally:
        gc.collect()  # a trainer and its model hold each other, and the device's memory


def _print_points(plan: Plan) -> None:
    """Print what would run."""
    write = sys.stdout.write
    seeds = ", ".join(map(str, plan.seeds))
    if plan.points is None:
        ranges = ", ".join(f"{factor.key} from {factor.spec()}" for factor in plan.factors)
        write(f"{plan.trials} points that TPE chooses on the way: {ranges}; seeds {seeds}\n")
    for point in plan.points or ():
        write(f"{plan.folder / plan.run_name(point, plan.seeds[0])}\n  {' '.join(flags(point))}\n")
    write(
        f"{plan.trials} points x {len(plan.seeds)} seeds ({seeds}) = {plan.trials * len(plan.seeds)} runs in "
        f"{plan.folder}; {plan.metric}, {plan.direction}; nothing was run\n"
    )
