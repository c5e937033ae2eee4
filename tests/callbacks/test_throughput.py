"""The figures of a step's work, against counts by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from g2r_lightning.callbacks.throughput import computed, multiplied
from g2r_lightning.student import BiEncoder
from tiny import WORDS, write_encoder
from tiny_experiment import run, write_experiment


def test_tokens_computed_by_hand() -> None:
    lengths = torch.tensor([2, 9, 3, 8])
    assert computed(lengths, None) == 4 * 9
    assert computed(lengths, 18) == 2 * 9 + 2 * 3
    assert computed(lengths, 1) == lengths.sum()  # one by one: no padding


def test_parameters_that_tokens_are_multiplied_with() -> None:
    tower = nn.Sequential(nn.Embedding(100, 4), nn.Linear(4, 3), nn.LayerNorm(3))
    assert multiplied(tower) == 4 * 3 + 3 + 3 + 3


def test_a_real_tower_counts_without_its_embeddings(tmp_path: Path) -> None:
    tower = BiEncoder(str(write_encoder(tmp_path / "e", WORDS))).response_tower
    model = tower.model
    assert multiplied(tower) == sum(p.numel() for p in tower.parameters()) - sum(
        table.weight.numel()
        for table in (
            model.embeddings.word_embeddings, model.embeddings.position_embeddings,
            model.embeddings.token_type_embeddings,
        )
    )  # fmt: skip


def test_every_step_logs_its_padding_speed_and_share_of_the_peak(tmp_path: Path) -> None:
    experiment = write_experiment(tmp_path)
    assert run("fit", experiment, "--trainer.max_epochs=1", "--run.test_trained=false") == 0
    events = EventAccumulator(str(tmp_path / "runs/first"))
    events.Reload()
    for name in ("padding", "tokens_per_second", "share_of_peak"):
        values = [event.value for event in events.Scalars(f"train/{name}")]
        assert len(values) == 6, name
        assert all(0 <= value < 1 for value in values) or name == "tokens_per_second"
    assert all(value > 10 for value in (event.value for event in events.Scalars("train/tokens_per_second")))
    assert [event.value for event in events.Scalars("train/padding")] != pytest.approx([0.0] * 6)
