"""The learning-rate schedules inside a Lightning fit."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from g2r_lightning.optimisation import FusedClipping, Schedule


class Standstill(LightningModule):
    """A module whose validation figure never moves, and which notes its rate before every step."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.schedule = schedule
        self.rates: list[float] = []

    def training_step(self, batch, batch_idx):
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return (self.weight - batch).square().sum()

    def validation_step(self, batch, batch_idx):
        self.log("figure", 1.0)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        steps = int(self.trainer.estimated_stepping_batches)
        return self.schedule.configure(optimizer, steps, self.trainer.val_check_batch)


def rates(schedule: Schedule, interval: float, epochs: int = 2, batches: int = 6) -> list[float]:
    data = DataLoader(torch.zeros(batches, 1), batch_size=1)
    module = Standstill(schedule)
    Trainer(
        max_epochs=epochs, val_check_interval=interval, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    ).fit(module, data, data)  # fmt: skip
    return module.rates


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_plateau_counts_validations_not_epochs():
    # The first validation sets the mark; two more without progress exceed a patience of 1: halved at 6 and 10 of 12.
    plateau = Schedule(name="plateau", warmup_steps=0, patience=1, monitor="figure")
    assert rates(plateau, interval=1 / 3) == [1.0] * 6 + [0.5] * 4 + [0.25] * 2
    assert rates(plateau, interval=1.0, epochs=4, batches=2) == [1.0] * 6 + [0.5] * 2


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_warm_up_rises_and_does_not_undo_a_halving():
    schedule = Schedule(name="plateau", warmup_steps=4, patience=0, monitor="figure")
    found = rates(schedule, interval=0.5)  # validations after steps 3, 6, 9: the first sets the mark
    assert found == pytest.approx([0.25, 0.4375, 0.625, 0.8125, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25])


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"warmup_steps": -1}, "warmup_steps=-1: must not be negative"),
        ({"patience": -1}, "patience=-1: must not be negative"),
        ({"factor": 1.0}, "factor=1.0: above 0, below 1"),
        ({"factor": float("nan")}, "factor=nan: above 0, below 1"),
    ],
)
def test_settings_out_of_range_are_refused(setting, named):
    with pytest.raises(ValueError, match=named):
        Schedule(**setting)


class Slope(FusedClipping):
    """A module with a gradient of length 5 in every step, and a note of what the optimiser got."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.fused = fused
        self.norms: list[float] = []

    def training_step(self, batch, batch_idx):
        return (self.weight * torch.tensor([3.0, 4.0])).sum()

    def on_before_zero_grad(self, optimizer):
        if self.weight.grad is not None:
            self.norms.append(float(self.weight.grad.norm()))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1, fused=self.fused)


@pytest.mark.parametrize(("algorithm", "length"), [("norm", 0.5), ("value", 0.5 * 2**0.5), (None, 0.5)])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_for_fused_optimisers_too(precision, algorithm, length):
    ended = []
    for fused in (False, True):
        module = Slope(fused)
        Trainer(
            max_steps=3, precision=precision, gradient_clip_val=0.5, gradient_clip_algorithm=algorithm,
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module, DataLoader(torch.zeros(3, 1), batch_size=1))  # fmt: skip
        assert len(module.norms) >= 2
        assert module.norms == pytest.approx([length] * len(module.norms), rel=1e-5)
        ended.append(module.weight.detach())
    assert torch.allclose(*ended, atol=1e-6)
