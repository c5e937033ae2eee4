"""What a fitted teacher leaves: the weights of its best validation, as a folder that every command loads.

Written while the run goes on, so that a run that is stopped, or gets worse, has its best teacher already.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from lightning import Callback, LightningModule, Trainer

from g2r_lightning.errors import G2RError


@runtime_checkable
class Exporting(Protocol):
    """A module that writes its teacher."""

    def export(self, folder: str | Path) -> None:
        """Write the teacher as a folder."""


class TeacherExport(Callback):
    """Keep the best teacher so far in ``<default_root_dir>/teacher``, or the last where nothing is validated.

    Args:
        monitor: the logged value that decides, lower is better.
    """

    def __init__(self, monitor: str = "validation/perplexity") -> None:
        self.monitor = monitor
        self.best = math.inf

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export where the monitored value is the lowest yet.

        Raises:
            G2RError: the value is not finite.
        """
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or trainer.state.fn != "fit" or value is None:
            return
        if not torch.isfinite(value):
            raise G2RError(
                f"{self.monitor} is {float(value)} at step {trainer.global_step}: lower model.init_args.learning_rate"
            )
        if float(value) < self.best:
            self.best = float(value)
            self._write(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export the last weights where none were exported by value."""
        if math.isinf(self.best):
            self._write(trainer, pl_module)

    def state_dict(self) -> dict[str, float]:
        """Return the best value, so that a resumed run does not replace it by a worse."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Take the best value of the run that is resumed."""
        self.best = state_dict["best"]

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Exporting)
        if trainer.is_global_zero:
            pl_module.export(Path(trainer.default_root_dir) / "teacher")
