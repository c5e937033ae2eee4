"""How much of a training step is work: padding, tokens a second, and the share of what the machine could do.

A student's towers do about six floating-point operations a parameter and token of a training step (two forward, four
backward), embeddings apart: those are looked up, not multiplied. Tokens are real ones; what is computed for padding, or
twice for cached gradients, is not counted as work. The machine's peak is a product of two 2048 x 2048 matrices in the
precision of the towers, measured when training starts.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from g2r_lightning.data.batches import CandidateBatch
from g2r_lightning.machine import matmul_peak
from g2r_lightning.student.encoders import length_chunks
from g2r_lightning.student.module import RetrievalStudent

FLOPS_A_PARAMETER = 6


class Throughput(Callback):
    """Log ``train/padding``, ``train/tokens_per_second`` and ``train/share_of_peak`` of each process's own steps.

    Args:
        peak: floating-point operations a second of this device; measured where ``None``.
    """

    def __init__(self, peak: float | None = None) -> None:
        self.peak = peak
        self._last: float | None = None
        self._parameters = (0, 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the peak, and count the towers' parameters."""
        if not isinstance(pl_module, RetrievalStudent):
            return
        if self.peak is None:
            half = "bf16" in str(trainer.precision)
            self.peak = matmul_peak(pl_module.device, torch.bfloat16 if half else torch.float32)
        encoder = pl_module.encoder
        self._parameters = (multiplied(encoder.context_tower), multiplied(encoder.response_tower))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, so that the epoch's validation is not part of its first step."""
        self._last = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock anew after a validation within an epoch."""
        self._last = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:  # fmt: skip
        """Log the figures of the step that has ended, its batch's making included."""
        if not isinstance(pl_module, RetrievalStudent) or not isinstance(batch, CandidateBatch):
            return
        now = time.perf_counter()
        seconds, self._last = now - (self._last or now), now
        budget = pl_module.encoder.token_budget
        contexts, responses = batch.context_mask.sum(dim=1), batch.response_mask.sum(dim=1)
        tokens = int(contexts.sum()), int(responses.sum())
        figures = {"padding": 1 - sum(tokens) / max(computed(contexts, budget) + computed(responses, budget), 1)}
        if seconds > 0 and self.peak:
            work = FLOPS_A_PARAMETER * sum(n * size for n, size in zip(tokens, self._parameters, strict=True))
            figures |= {"tokens_per_second": sum(tokens) / seconds, "share_of_peak": work / seconds / self.peak}
        size = len(batch.examples)
        pl_module.log_dict({f"train/{name}": value for name, value in figures.items()}, batch_size=size)


def multiplied(tower: nn.Module) -> int:
    """Return how many parameters of a tower each token is multiplied with: all but those of its embeddings."""
    looked_up = {id(table.weight) for table in tower.modules() if isinstance(table, nn.Embedding)}
    return sum(parameter.numel() for parameter in tower.parameters() if id(parameter) not in looked_up)


def computed(lengths: Tensor, token_budget: int | None) -> int:
    """Return how many tokens, padding included, the towers see of texts of these lengths (B,)."""
    return sum(len(rows) * width for rows, width in length_chunks(lengths, token_budget))
