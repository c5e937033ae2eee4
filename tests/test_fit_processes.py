"""``fit`` on two processes as a user runs it: the same training as on one with batches of twice the size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tiny_experiment import run, write_experiment

FLAGS = (
    "--data.negatives.in_batch=true", "--data.evaluation_batch_size=8", "--run.test_trained=false",
    "--model.encoder.dropout=0", "--model.optimizer.lr=0.01", "--trainer.max_epochs=4", "--trainer.callbacks=null",
)  # fmt: skip


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in EventAccumulator(str(folder)).Reload().Scalars("train/loss")]


def test_two_processes_train_as_one(tmp_path):
    experiment = write_experiment(tmp_path)
    words = [
        sys.executable, "-m", "g2r_lightning", "fit", "-c", str(experiment), "--run.name=two", "--data.batch_size=8",
        "--trainer.devices=2", "--trainer.strategy=ddp", *FLAGS,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    two = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert two.returncode == 0, two.stderr
    assert run("fit", experiment, "--run.name=one", "--data.batch_size=16", *FLAGS) == 0
    expected, found = losses(tmp_path / "runs/one"), losses(tmp_path / "runs/two")
    assert len(expected) == 12
    assert expected[-1][1] < expected[0][1] - 0.05  # something was learnt, so gradients matter
    assert [step for step, _ in found] == [step for step, _ in expected]
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected], abs=1e-5)
