"""The figures of a teacher or of a learned metric as files of the run, like the student's."""

from __future__ import annotations

import json
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer

from g2r_lightning.callbacks.evaluation import TOGETHER
from g2r_lightning.callbacks.labelled import Labelled
from g2r_lightning.paths import atomic_path


class TeacherFigures(Labelled):
    """Write what the model's own evaluation logged to ``results/<stage>.json`` of the run.

    The keys are ``<set>/<figure>``, with ``all`` for the sets together.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``results/validation.json``."""
        self._write(trainer, "validation")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``results/test.json``."""
        self._write(trainer, "test")

    def _write(self, trainer: Trainer, stage: str) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        logged = trainer.callback_metrics
        figures = {key.removeprefix(f"{stage}/"): float(logged[key]) for key in logged if key.startswith(f"{stage}/")}
        flat = {key if "/" in key else f"{TOGETHER}/{key}": value for key, value in figures.items()}
        about = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        with atomic_path(Path(trainer.default_root_dir) / "results" / f"{self.label or stage}.json") as temporary:
            temporary.write_text(json.dumps({**flat, **about}, indent=2) + "\n", encoding="utf-8")
