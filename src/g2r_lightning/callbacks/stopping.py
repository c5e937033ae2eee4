"""Stop training behind a step, with a checkpoint, when a signal asks for it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from g2r_lightning.callbacks.rng import RandomState
from g2r_lightning.stopping import stop_signals

log = logging.getLogger(__name__)
PREFIX = "stopped"
_TRAINED, _EVALUATED = "epoch_loop.batch_progress", "epoch_loop.val_loop.batch_progress"


class StopWithCheckpoint(Checkpoint):
    """Save where training was when it was stopped, so that the same command loses no step.

    It has to be the last of the callbacks, so that what the others keep of a step is saved too: as a ``Checkpoint`` it
    stays behind the others of that kind where a module brings callbacks of its own and Lightning sorts them anew.

    An evaluation within the training is stopped at once, and made from its beginning by the next run. With several
    processes, all would have to stop behind the same step; there the signal stops at once, whichever of them hears it,
    and the run goes on from its last checkpoint.

    A checkpoint that was written behind the last step of an epoch, before its evaluation, is gone on from with the
    evaluation: Lightning 2.6 would leave it out, and with it, perhaps, the best checkpoint of all.

    Args:
        folder: of the run's checkpoints.
        random: keeps the state of the generators.
    """

    def __init__(self, folder: Path, random: RandomState) -> None:
        self.folder = folder
        self.random = random
        self._behind_the_step: dict[str, Any] | None = None  # the generators
        self._evaluating = False
        self._going_back = False

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let each of several processes hear signals by itself."""
        _hear_alone(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask for patience."""
        _hear_alone(trainer)
        _be_patient(trainer.world_size == 1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the moment; save and stop, if that was asked."""
        if (signals := stop_signals()) is not None and trainer.world_size == 1:
            if signals.patient and signals.asked:
                self._stop(trainer)
            self._behind_the_step = self.random.states()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be impatient."""
        self._evaluating = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if self._evaluating:
            self._stop_if_asked(trainer)
            _be_patient(False)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be patient again: checkpoints are written next, and what is noted of them must be true."""
        if self._evaluating:
            self._evaluating = False
            _be_patient(trainer.world_size == 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop here, if that was asked; else all is done, and what a stop left is of no use any more."""
        self._stop_if_asked(trainer)
        _be_patient(False)
        if trainer.is_global_zero:
            for path in self.folder.glob(f"{PREFIX}-step=*.ckpt"):
                path.unlink()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the moment before an evaluation that was stopped; let the next signal stop at once."""
        _be_patient(False)
        if isinstance(exception, KeyboardInterrupt) and self._evaluating and self._behind_the_step is not None:
            self._going_back = True
            self.random.recalled = self._behind_the_step
            self._save(trainer)
            self._going_back, self.random.recalled = False, None
        self._evaluating = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let the loops stand before an evaluation that was stopped."""
        if self._going_back:
            checkpoint["loops"]["fit_loop"][_EVALUATED] = _begun()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let the loops stand before the evaluation of an epoch whose last step is the last that was saved."""
        loops = checkpoint.get("loops", {}).get("fit_loop", {})
        steps = loops.get(_TRAINED)
        if steps is None or not steps["is_last_batch"] or not _evaluates(trainer, checkpoint["epoch"]):
            return
        if steps["total"]["completed"] == steps["total"]["processed"] - 1:
            for counts in (steps["total"], steps["current"]):
                counts["completed"] = counts["processed"]
            loops[_EVALUATED] = _begun()

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if (signals := stop_signals()) is not None and signals.patient and signals.asked:
            self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        _be_patient(False)
        if not self._evaluating:  # else by `on_exception`
            self._save(trainer)
        raise KeyboardInterrupt

    def _save(self, trainer: Trainer) -> None:
        path = self.folder / f"{PREFIX}-step={trainer.global_step}.ckpt"
        trainer.save_checkpoint(path, weights_only=False)
        log.info("stopped after step %d: %s", trainer.global_step, path)


def _begun() -> dict[str, Any]:
    """Return the progress of an evaluation that Lightning makes again from the beginning."""
    counts = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    return {"total": dict(counts), "current": dict(counts), "is_last_batch": False}


def _evaluates(trainer: Trainer, epoch: int) -> bool:
    """Whether there is an evaluation at the end of an epoch."""
    every = trainer.check_val_every_n_epoch
    return bool(trainer.enable_validation and every is not None and (epoch + 1) % every == 0)


def _hear_alone(trainer: Trainer) -> None:
    if trainer.world_size > 1 and (signals := stop_signals()) is not None:
        signals.take_back()


def _be_patient(patient: bool) -> None:
    if (signals := stop_signals()) is not None:
        signals.patient = patient
