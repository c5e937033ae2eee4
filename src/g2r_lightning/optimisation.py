"""How the learning rate moves: warm-up, then constant, linear, cosine, or halved where validation stands still.

And how gradients are clipped for fused optimisers, which mixed precision would refuse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR, ReduceLROnPlateau


@dataclass(frozen=True)
class Schedule:
    """Settings of the learning-rate schedule.

    Args:
        name: what follows the warm-up; ``linear`` and ``cosine`` end at 0 with the last step, ``plateau`` multiplies
            by ``factor`` after ``patience`` validations without a better ``monitor``.
        warmup_steps: steps of linear warm-up (Kim et al. 2021: 100).
        factor: of ``plateau`` (Kim et al. 2021: 0.5).
        patience: of ``plateau`` (Kim et al. 2021: 1).
        monitor: logged figure that ``plateau`` watches.
        mode: whether that figure is better when larger or when smaller.
    """

    name: Literal["constant", "linear", "cosine", "plateau"] = "linear"
    warmup_steps: int = 100
    factor: float = 0.5
    patience: int = 1
    monitor: str = "validation_hits_at_1"
    mode: Literal["max", "min"] = "max"

    def __post_init__(self) -> None:
        """Refuse settings out of their range.

        Raises:
            ValueError: names the setting.
        """
        for name in ("warmup_steps", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"schedule.{name}={getattr(self, name)}: must not be negative")
        if not 0 < self.factor < 1:
            raise ValueError(f"schedule.factor={self.factor}: above 0, below 1")

    def configure(
        self, optimizer: Optimizer, total_steps: int, validation_steps: int | None = None
    ) -> dict[str, Any] | tuple[list[Any], list[Any]]:
        """Return what ``configure_optimizers`` of a LightningModule returns.

        Args:
            optimizer: the optimiser.
            total_steps: optimiser steps of the whole run.
            validation_steps: training batches from one validation to the next within an epoch; ``None`` where epochs
                end with one validation or none.
        """
        from transformers import get_scheduler

        if self.name != "plateau":
            names = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
            schedule = get_scheduler(names[self.name], optimizer, self.warmup_steps, total_steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
        # LinearLR multiplies the current rate instead of setting it, so the plateau's halvings survive it.
        warmup = LinearLR(optimizer, 1 / max(self.warmup_steps, 1), total_iters=self.warmup_steps)
        plateau = ReduceLROnPlateau(optimizer, mode=self.mode, factor=self.factor, patience=self.patience)
        # Lightning looks at a plateau once an epoch unless told; patience counts validations, several an epoch or not.
        when = {"interval": "step", "frequency": validation_steps} if validation_steps else {"interval": "epoch"}
        return [optimizer], [
            {"scheduler": warmup, "interval": "step", "name": "warmup"},
            {"scheduler": plateau, **when, "monitor": self.monitor, "name": "plateau"},
        ]


class FusedClipping(LightningModule):
    """A module whose gradients are clipped under fused optimisers too.

    Lightning's mixed precision refuses to clip for an optimiser that can unscale gradients by itself, as fused AdamW
    does. Only float16 scales them: in bfloat16 there is nothing to unscale, and the refusal has no ground.
    """

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients of an optimiser as ``trainer.gradient_clip_val`` says.

        Args:
            optimizer: whose parameters' gradients are clipped, in place.
            gradient_clip_val: largest norm or value; ``None`` or 0 clips nothing.
            gradient_clip_algorithm: ``norm`` or ``value``; ``norm`` by default.
        """
        plugin = self.trainer.precision_plugin
        if type(plugin) is MixedPrecision and plugin.scaler is None:
            algorithm = GradClipAlgorithmType((gradient_clip_algorithm or "norm").lower())
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val or 0.0, algorithm)
            return
        self.clip_gradients(
            optimizer, gradient_clip_val=gradient_clip_val, gradient_clip_algorithm=gradient_clip_algorithm
        )
