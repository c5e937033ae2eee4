"""``fit`` of a learned metric on two processes: the same training and the same figures as on one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_metric import write_metric_experiment

from tiny_experiment import results, run

FLAGS = ("--model.dropout=0", "--trainer.callbacks=null", "--model.schedule.warmup_steps=1")


def losses(folder: Path) -> list[float]:
    return [event.value for event in EventAccumulator(str(folder)).Reload().Scalars("train/loss")]


@pytest.mark.slow
def test_two_processes_train_and_judge_as_one(tmp_path):
    experiment = write_metric_experiment(tmp_path)
    words = [
        sys.executable, "-m", "g2r_lightning", "fit", "-c", str(experiment), "--run.name=two", "--data.batch_size=4",
        "--trainer.devices=2", "--trainer.strategy=ddp", *FLAGS,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    two = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert two.returncode == 0, two.stderr
    assert run("fit", experiment, "--run.name=one", "--data.batch_size=8", *FLAGS) == 0
    expected, found = losses(tmp_path / "runs/one"), losses(tmp_path / "runs/two")
    assert len(expected) == 12
    assert expected[-1] != pytest.approx(expected[0], abs=1e-3)  # something was learnt, so gradients matter
    assert found == pytest.approx(expected, abs=1e-5)
    for stage in ("validation", "test"):
        assert results(tmp_path / "runs/two", stage) == pytest.approx(results(tmp_path / "runs/one", stage), abs=1e-4)
