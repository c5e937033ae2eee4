"""Who runs what next: a queue in the study's storage, from which any number of processes take.

Each run that is due stands in the storage as one of Optuna's waiting trials. A process takes the oldest one, holds a
lock in its name while it trains, and writes down now and then that it is alive. Before anybody takes a run, what is
due is settled anew: runs whose process is gone and runs that failed go back into the queue (and train on from their
last checkpoint), later seeds come in, and where TPE chooses, a new point is drawn when nothing waits.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from g2r_lightning.errors import G2RError
from g2r_lightning.paths import alone_in, is_held
from g2r_lightning.studies.sweep.plan import Plan
from g2r_lightning.studies.sweep.space import Point, grid_points, point_key, stored
from g2r_lightning.studies.sweep.state import Run, drawn_points, read_runs

LOCKS = ".locks"  # folders of their own: `fit` holds the run's
GONE = "its process ended without a word"
REDRAWN = 20  # points that TPE may draw again before one is taken from those that are left


@dataclass
class Task:
    """A run that was taken from the queue.

    Args:
        trial: Optuna's trial.
        point: its settings.
        seed: its seed.
        name: of its folder.
        scout: whether a pruner judges it.
        attempt: counted from 1.
        held: the lock in its name.
    """

    trial: Any
    point: Point
    seed: int
    name: str
    scout: bool
    attempt: int
    held: ExitStack


class Queue:
    """The queue of a study.

    Args:
        study: an ``optuna.Study``.
        plan: what it is to do.

    Attributes:
        exhausted: whether TPE found no further point, though more were asked for.
    """

    def __init__(self, study: Any, plan: Plan) -> None:
        self.study = study
        self.plan = plan
        self.exhausted = False
        self._distributions = {factor.key: factor.distribution() for factor in plan.factors}
        if plan.settings.retry_failed:
            self._forgive()

    def runs(self) -> list[Run]:
        """Return all runs as they stand."""
        return read_runs(self.study.get_trials(deepcopy=False), self.plan)

    def take(self) -> Task | None:
        """Take the next run; ``None`` where nothing waits, though other processes may still be at work."""
        with alone_in(self.plan.folder, wait=True):
            self._settle()
            while (trial := self._ask()) is not None:
                facts = trial.user_attrs
                if "run" not in facts:  # without file locks another process took what waited in the same instant
                    self._fail(trial.number, "nothing waited")
                    continue
                held = ExitStack()
                try:
                    held.enter_context(alone_in(self.plan.folder / LOCKS / facts["run"]))
                except G2RError as error:  # its last process has told how it ended, and has not let go yet
                    self._fail(trial.number, str(error), interrupted=True)
                    continue
                trial.set_user_attr("owner", {"host": socket.gethostname(), "process": os.getpid()})
                trial.set_user_attr("alive", time.time())
                scout = self.plan.prunes and facts["seed"] == self.plan.seeds[0]
                return Task(trial, facts["point"], facts["seed"], facts["run"], scout, facts["attempt"], held)
        return None

    @contextmanager
    def alive(self, task: Task) -> Iterator[None]:
        """Write down regularly that a task's process is alive; let go of its lock at the end."""
        from optuna.exceptions import OptunaError

        ended = threading.Event()

        def beat() -> None:
            """Write the time until the task ends."""
            while not ended.wait(self.plan.settings.stale_after / 10):
                with suppress(OptunaError, RuntimeError, OSError):  # taken over, or the storage is away for a while
                    task.trial.set_user_attr("alive", time.time())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            task.held.close()

    def finish(self, task: Task, state: str, value: float | None = None, **facts: Any) -> bool:
        """Write down what became of a task.

        Args:
            task: the task.
            state: ``COMPLETE``, ``PRUNED`` or ``FAIL``.
            value: of the metric, where it is complete.
            facts: kept with it; ``reason``, and ``final`` or ``interrupted``, of a failure.

        Returns:
            Whether it counted: not where another process thought this one dead and took the run over.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        if self.study.get_trials(deepcopy=False)[task.trial.number].state.is_finished():
            return False
        try:
            for key, fact in facts.items():
                task.trial.set_user_attr(key, fact)
            self.study.tell(task.trial, value, state=TrialState[state])
        except UpdateFinishedTrialError:
            return False
        return True

    def _settle(self) -> None:
        """Bring the queue up to date."""
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.name == "RUNNING" and self._is_gone(trial):
                self._fail(trial.number, GONE)
        runs = self.runs()
        states = {run.name: run.state(self.plan.settings.retries) for run in runs}
        undecided = {
            point_key(run.point)
            for run in runs
            if run.scout and states[run.name] not in ("finished", "failed", "pruned")
        }
        for run in runs:
            gated = self.plan.prunes and not run.scout and point_key(run.point) in undecided
            if states[run.name] == "retry" or (states[run.name] == "planned" and not gated):
                counted = int(run.facts.get("attempt", 0)) + (0 if run.facts.get("interrupted") else 1)
                self._enqueue(run.point, run.seed, counted)

    def _enqueue(self, point: Point, seed: int, attempt: int) -> None:
        name = self.plan.run_name(point, seed)
        facts = {"point": point, "seed": seed, "run": name, "attempt": attempt}
        params = {key: stored(value) for key, value in point.items()}
        self.study.enqueue_trial(params, user_attrs=facts)

    def _ask(self) -> Any:
        """Return the oldest waiting trial, or a new one where TPE may draw; ``None`` where there is neither.

        Where TPE draws nothing but known points, the next one is any that is left.
        """
        from optuna.trial import TrialState

        if self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return self.study.ask(self._distributions)
        if self.plan.points is not None or self.exhausted:
            return None
        for _ in range(REDRAWN):
            trials = self.study.get_trials(deepcopy=False)
            points = drawn_points(trials)
            if len(points) >= self.plan.trials:
                return None
            self.study.sampler = self._tpe(len(trials))
            trial = self.study.ask(self._distributions)
            point = {factor.key: factor.value(trial.params[factor.key]) for factor in self.plan.factors}
            if point_key(point) in map(point_key, points):
                self._fail(trial.number, "TPE drew a point again")
                continue
            seed = self.plan.seeds[0]
            facts = {"point": point, "seed": seed, "run": self.plan.run_name(point, seed), "attempt": 1}
            for key, fact in facts.items():
                trial.set_user_attr(key, fact)
            return trial
        known = set(map(point_key, points))
        left = next((point for point in grid_points(self.plan.factors) if point_key(point) not in known), None)
        if left is None:  # a range so narrow that its values round to the same few
            self.exhausted = True
            return None
        self._enqueue(left, self.plan.seeds[0], 1)
        return self.study.ask(self._distributions)

    def _tpe(self, drawn: int) -> Any:
        """Return a sampler whose draws do not depend on how many processes and starts there were before."""
        import warnings

        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # those that still run count as bad, so that processes do not all try the same place
            return optuna.samplers.TPESampler(
                seed=(self.plan.settings.sampler_seed + drawn) % 2**32, constant_liar=True
            )

    def _is_gone(self, trial: Any) -> bool:
        """Whether the process of a running trial has ended.

        While the lock in its name is held it is at work, wherever that is: no killed process keeps one. On its own
        machine a lock that nobody holds tells that it is gone. From another machine, to which some file systems do not
        tell of locks, or where there are none, it is gone when it has been silent for long. One that never said whose
        it is was stopped while it took the run, for which it held the folder that this process holds now.
        """
        facts = trial.user_attrs
        owner = facts.get("owner", {})
        if not owner and is_held(self.plan.folder):
            return True
        held = is_held(self.plan.folder / LOCKS / facts["run"]) if "run" in facts else None
        if held or (held is not None and owner.get("host") == socket.gethostname()):
            return not held
        started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        silent = time.time() - float(facts.get("alive", started))
        return bool(silent > self.plan.settings.stale_after)

    def _fail(self, number: int, reason: str, **facts: Any) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        trial = self.study.get_trials(deepcopy=False)[number]
        if trial.state.is_finished():  # it ended, and let go of its lock, while this process looked
            return
        with suppress(UpdateFinishedTrialError):
            for key, fact in {"reason": reason, **facts}.items():
                self.study._storage.set_trial_user_attr(trial._trial_id, key, fact)
            self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def _forgive(self) -> None:
        """Put those back into the queue that failed for good."""
        with alone_in(self.plan.folder, wait=True):
            for run in self.runs():
                if run.state(self.plan.settings.retries) == "failed":
                    self._enqueue(run.point, run.seed, 1)
