"""Fine-tune a teacher on dialogues: token cross-entropy of the response given the context, nothing more.

The teacher is an object of the configuration; this module gives it an optimiser, measures perplexity on held-out
dialogues, and leaves a plain Hugging Face folder in ``<default_root_dir>/teacher``, which ``generate`` and ``score``
load by path: the best by validation perplexity, or the last where nothing is validated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from g2r_lightning.dialogue.types import Example
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.teacher.base import Teacher
from g2r_lightning.teacher.batching import IGNORED, token_log_likelihoods
from g2r_lightning.teacher.perplexity import TokenPerplexity

Batch = dict[str, Tensor]


class TeacherModule(LightningModule):
    """The Lightning shell of a :class:`Teacher`.

    Args:
        teacher: what is fine-tuned; loaded when training or evaluation sets up.
        learning_rate: the highest rate of AdamW.
        weight_decay: decoupled decay of matrices; biases and normalisation weights are spared.
        warmup_steps: optimiser steps over which the rate rises from 0.
        schedule: the rate after warm-up: ``constant``, or ``linear`` or ``cosine`` down to 0 at the last step.
        label_smoothing: share of each target spread over the vocabulary, 0 to 1; perplexity is measured without.
        export: write the folder ``<default_root_dir>/teacher`` while fitting.
    """

    def __init__(
        self,
        teacher: Teacher,
        learning_rate: float = 5e-5,
        weight_decay: float = 0.01,
        warmup_steps: int = 100,
        schedule: Literal["constant", "linear", "cosine"] = "linear",
        label_smoothing: float = 0.0,
        export: bool = True,
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_steps = warmup_steps
        self.schedule = schedule
        self.label_smoothing = label_smoothing
        self.export_while_fitting = export
        self._perplexities: dict[str, TokenPerplexity] = {}
        self._clock: tuple[float, int] | None = None

    # -- set-up ----------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Load the teacher and register its weights with Lightning."""
        if not hasattr(self, "model"):
            self.model = self.teacher.model
            self.model.train()  # transformers loads in evaluation mode, and Lightning keeps the mode that it finds

    def configure_callbacks(self) -> Sequence[Callback]:
        """Add the export, unless it is switched off."""
        return [TeacherExport()] if self.export_while_fitting else []

    def configure_optimizers(self) -> Any:
        """Return AdamW with warm-up and the chosen schedule, stepped every optimiser step."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate)
        factor = rate_factor(self.schedule, self.warmup_steps, self._total_steps())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _total_steps(self) -> int:
        if self.schedule == "constant":
            return self.warmup_steps
        total = self.trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise ConfigError(f"schedule={self.schedule} needs an end: set trainer.max_steps or trainer.max_epochs")
        return int(total)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Return a padded batch; see :meth:`Teacher.batch`."""
        return self.teacher.batch(examples)

    # -- training --------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """Return the cross-entropy of the response tokens, their mean over the batch, in nats."""
        logits, labels = self.teacher.logits(batch).float(), batch["labels"]
        loss = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, label_smoothing=self.label_smoothing
        )
        self.log("train/loss", loss, prog_bar=True, batch_size=len(labels))
        self._log_speed(int((labels != IGNORED).sum()))
        return loss

    def _log_speed(self, tokens: int) -> None:
        """Log response tokens trained per second, on this device, from step to step."""
        now = time.perf_counter()
        if self._clock is not None:
            before, done = self._clock
            self.log("train/tokens_per_second", done / (now - before))
        self._clock = (now, tokens)

    # -- evaluation ------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Start counting anew."""
        self._perplexities, self._clock = {}, None

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ARG002
        """Add a batch to the perplexity of its set."""
        self._add(batch, "validation", dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log ``validation/<set>/perplexity`` of each set, and ``validation/perplexity`` over the tokens of all."""
        self._log_perplexities("validation")

    def on_test_epoch_start(self) -> None:
        """Start counting anew."""
        self._perplexities = {}

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ARG002
        """Add a batch to the perplexity of its set."""
        self._add(batch, "test", dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Log ``test/<set>/perplexity`` of each set, and ``test/perplexity`` over the tokens of all."""
        self._log_perplexities("test")

    def _add(self, batch: Batch, stage: str, dataloader_idx: int) -> None:
        """Count a batch towards its set, named by the data module (``validation_names``), else by its number."""
        names: Sequence[str] = getattr(getattr(self.trainer, "datamodule", None), f"{stage}_names", ())
        name = names[dataloader_idx] if dataloader_idx < len(names) else str(dataloader_idx)
        metric = self._perplexities.setdefault(name, TokenPerplexity().to(self.device))
        metric.update(*token_log_likelihoods(self.teacher.logits(batch), batch["labels"]))

    def _log_perplexities(self, stage: str) -> None:
        whole = TokenPerplexity().to(self.device)
        for name, metric in self._perplexities.items():
            self.log(f"{stage}/{name}/perplexity", metric.compute().float())
            whole.update(metric.log_likelihood, metric.tokens)
        self.log(f"{stage}/perplexity", whole.compute().float(), prog_bar=True)

    # -- export ----------------------------------------------------------------------------------------------------

    def export(self, folder: str | Path) -> None:
        """Write the teacher as a plain Hugging Face folder, which ``name_or_path`` loads."""
        self.teacher.save(folder)


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
        assert isinstance(pl_module, TeacherModule)
        if trainer.is_global_zero:
            pl_module.export(Path(trainer.default_root_dir) / "teacher")


def rate_factor(schedule: str, warmup_steps: int, total_steps: int) -> Callable[[int], float]:
    """Return step -> factor of the highest learning rate.

    Args:
        schedule: ``constant``, ``linear`` or ``cosine``.
        warmup_steps: steps of the rise from 0 to 1; step ``warmup_steps`` has factor 1.
        total_steps: the step at which ``linear`` and ``cosine`` reach 0.

    >>> [rate_factor("linear", 2, 6)(step) for step in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        if schedule == "linear":
            return 1.0 - done
        return (1.0 + math.cos(math.pi * done)) / 2 if schedule == "cosine" else 1.0

    return factor
