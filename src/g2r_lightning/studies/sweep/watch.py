"""A callback that follows one run of a study: its metric at every validation, and whether to stop it."""

from __future__ import annotations

import math
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from g2r_lightning.errors import ConfigError
from g2r_lightning.runs import RunFolder
from g2r_lightning.studies.sweep.plan import Direction

KEPT = "sweep"  # of record.json


class Watch(Callback):
    """Keep the metric of every validation in the run's record, and let a pruner judge the run by it.

    The history is kept in ``record.json`` rather than in the checkpoint, so that it is there when the run is finished;
    a run that goes on from a checkpoint keeps what was measured up to there.

    Args:
        run: the run's folder.
        metric: which figure.
        facts: kept beside the history.
        judge: called with (value, number of the validation); raises to stop the run.
        report: called with (epoch, value) for the person who waits.
    """

    def __init__(
        self,
        run: RunFolder,
        metric: str,
        facts: dict[str, Any],
        judge: Callable[[float, int], None] | None = None,
        report: Callable[[int, float], None] | None = None,
    ) -> None:
        self.run, self.metric, self.facts, self.judge, self.report = run, metric, facts, judge, report
        self.history: list[tuple[int, float]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - Lightning's hook
        """Take up what an earlier attempt measured before the checkpoint from which it goes on."""
        self.history = [(step, value) for step, value in history(self.run) if step <= trainer.global_step]
        for place, (_, value) in enumerate(self.history, start=1):
            self._judge(value, place)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Take the figure of a validation.

        Raises:
            ConfigError: there is no such figure.
        """
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        figures = trainer.callback_metrics
        if self.metric not in figures:
            nearest = get_close_matches(self.metric, figures, 1)
            known = f"did you mean '{nearest[0]}'?" if nearest else f"known: {', '.join(sorted(map(str, figures)))}"
            raise ConfigError(f"--metric={self.metric}: validation logs no such figure; {known}")
        value = float(figures[self.metric])
        step = trainer.global_step  # a validation that a checkpoint was written just before is run once more
        self.history = [one for one in self.history if one[0] < step] + [(step, value)]
        self.run.update_record(**{KEPT: {**self.facts, "metric": self.metric, "history": self.history}})
        if self.report is not None:
            self.report(trainer.current_epoch, value)
        self._judge(value, len(self.history))

    def _judge(self, value: float, place: int) -> None:
        if self.judge is not None and not math.isnan(value):
            self.judge(value, place)


def history(run: RunFolder) -> list[tuple[int, float]]:
    """Return (step, metric) of each validation that a run's record holds."""
    kept = run.record().get(KEPT) or {}
    return [(int(step), float(value)) for step, value in kept.get("history") or []]


def best(values: list[float], direction: Direction) -> float:
    """Return the best value, which is that of the best checkpoint where the metric is what it monitors; else NaN."""
    numbers = [value for value in values if not math.isnan(value)]
    if not numbers:
        return math.nan
    return max(numbers) if direction == "maximize" else min(numbers)
