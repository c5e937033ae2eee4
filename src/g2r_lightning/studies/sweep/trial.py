"""One run of a study: ``fit`` in a folder of its own, with its output in a file and its outcome in the queue."""

from __future__ import annotations

import logging
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.paths import disk_is_full, writable_place
from g2r_lightning.runs import RunFolder
from g2r_lightning.studies.sweep.plan import Plan
from g2r_lightning.studies.sweep.queue import Queue, Task
from g2r_lightning.studies.sweep.space import flags
from g2r_lightning.studies.sweep.watch import Watch, best, history

Fit = Callable[[Sequence[str], Sequence[Callback]], RunFolder]
LOGS = "logs"
PRUNED = "pruned"
# What surrounds a run in a study: nobody watches its bar, and the untrained student is the same one every time.
AROUND = (
    "--run.on_existing=resume",
    "--run.test_untrained=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
)


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Args:
        state: ``COMPLETE``, ``PRUNED`` or ``FAIL``.
        value: of the metric, where it is complete.
        reason: of a failure, or where it was pruned.
        seconds: it took, this time.
        final: whether another attempt would fail in the same way.
    """

    state: str
    value: float | None = None
    reason: str = ""
    seconds: float = 0.0
    final: bool = False


def fit_arguments(plan: Plan, task: Task) -> list[str]:
    """Return the flags of ``fit`` that make a task's run."""
    return [
        *plan.arguments, *flags(task.point), f"--seed_everything={task.seed}", f"--run.root={plan.folder}",
        f"--run.name={task.name}", *AROUND,
    ]  # fmt: skip


def run_task(queue: Queue, task: Task, fit: Fit) -> Outcome:
    """Run a task and write down what became of it.

    Args:
        queue: it was taken from.
        task: what to run.
        fit: the command, called with flags and callbacks.

    Raises:
        KeyboardInterrupt: Ctrl-C; the run is back in the queue, and will go on from its last checkpoint.
        G2RError: the disk is full; the run is back in the queue likewise.
    """
    import optuna

    plan, begun = queue.plan, time.monotonic()
    run = RunFolder(plan.folder / task.name)
    log = plan.folder / LOGS / f"{task.name}.log"
    with queue.alive(task):
        try:
            value = _value(queue, task, run, fit, log)
        except optuna.TrialPruned as pruned:
            run.update_record(status=PRUNED)
            outcome = Outcome("PRUNED", reason=str(pruned), seconds=time.monotonic() - begun)
            queue.finish(task, "PRUNED", reason=str(pruned), seconds=outcome.seconds)
            return outcome
        except (KeyboardInterrupt, SystemExit) as stopped:
            queue.finish(task, "FAIL", reason="stopped", interrupted=True)
            raise KeyboardInterrupt from stopped
        except Exception as error:  # whatever it is, it is one run's, reported with the rest
            if disk_is_full(error):  # not a full disk, which all runs share
                with suppress(OSError):  # the study's own file may be there too; then its next process finds this run
                    queue.finish(task, "FAIL", reason="the disk is full", interrupted=True)
                raise G2RError(f"{task.name}: {_said(error)}; make room, then run the same command again") from error
            final = isinstance(error, G2RError)
            said = _said(error)
            reason = said if final else f"{type(error).__name__}: {said} (see {log})"
            queue.finish(task, "FAIL", reason=reason, final=final)
            return Outcome("FAIL", reason=reason, seconds=time.monotonic() - begun, final=final)
        seconds = time.monotonic() - begun
        figures = {key: float(found) for key, found in run.results("test").items() if isinstance(found, int | float)}
        queue.finish(task, "COMPLETE", value, figures=figures, seconds=seconds)
    return Outcome("COMPLETE", value, seconds=seconds)


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _value(queue: Queue, task: Task, run: RunFolder, fit: Fit, log: Path) -> float:
    """Run ``fit`` and return the metric.

    Raises:
        TrialPruned: the pruner stopped it, now or before.
        ConfigError: there is no figure to go by.
    """
    import optuna

    plan = queue.plan
    if task.scout and run.record().get("status") == PRUNED:
        raise optuna.TrialPruned(_pruned_at(len(history(run))))
    arguments = fit_arguments(plan, task)
    facts = {"study": plan.name, "point": task.point, "seed": task.seed, "command": ["fit", *arguments]}

    judged: set[int] = set()

    def judge(value: float, place: int) -> None:
        """Let the pruner compare a value with those of the other points' first seeds."""
        if place not in judged:
            judged.add(place)
            task.trial.report(value, place)
        if task.trial.should_prune():
            raise optuna.TrialPruned(_pruned_at(place))

    def report(epoch: int, value: float) -> None:
        """Let others see how far the run is."""
        task.trial.set_user_attr("progress", {"epoch": epoch + 1, "value": value})

    watch = Watch(run, plan.metric, facts, judge if task.scout else None, report)
    with _output_to(log):
        try:
            finished = fit(arguments, [watch])
        except (optuna.TrialPruned, G2RError):
            raise
        except BaseException:
            traceback.print_exc()
            raise
    values = [value for _, value in history(finished)]
    record = finished.record()
    if not values and record.get("monitor") == plan.metric:  # a `fit` of the same settings had been here before
        values = [float(record["best_score"])]
    value = best(values, plan.direction)
    if math.isnan(value):
        raise ConfigError(f"{finished.folder}: no validation gave a number for {plan.metric}")
    return value


def _pruned_at(place: int) -> str:
    return f"pruned after validation {place}"


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send what this process prints and logs to the end of a file."""
    before: dict[Any, Any] = {}
    usual = sys.stderr
    with writable_place(path).open("a", encoding="utf-8", buffering=1) as file:
        for handler in _handlers():
            if handler.stream in (sys.stderr, sys.stdout):
                before[handler] = handler.setStream(file)
        try:
            with redirect_stdout(file), redirect_stderr(file):
                yield
        finally:
            for handler in _handlers():  # those that came up meanwhile too
                if handler.stream is file:
                    handler.setStream(before.get(handler, usual))


def _handlers() -> set[logging.StreamHandler[Any]]:
    """Return all that log to a terminal."""
    loggers = [logging.getLogger(name) for name in (None, *logging.root.manager.loggerDict)]
    found = {handler for logger in loggers for handler in logger.handlers}
    return {one for one in found if isinstance(one, logging.StreamHandler) and not isinstance(one, logging.FileHandler)}
