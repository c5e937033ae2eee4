"""``fit`` on two processes as a user runs it: the same training as on one with batches of twice the size."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tiny_experiment import run, write_experiment

FLAGS = (
    "--data.negatives.in_batch=true", "--data.evaluation_batch_size=8", "--run.test_trained=false",
    "--model.encoder.dropout=0", "--model.optimizer.lr=0.01", "--trainer.max_epochs=4", "--trainer.callbacks=null",
)  # fmt: skip
EVERY_FIVE_STEPS = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {"every_n_train_steps": 5, "filename": "{step}"},
}


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


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_one_of_two_stops_both_and_the_same_command_goes_on(tmp_path, number, status):
    experiment = write_experiment(tmp_path)
    words = [
        sys.executable, "-m", "g2r_lightning", "fit", "-c", str(experiment), "--run.name=two", "--data.batch_size=8",
        "--trainer.devices=2", "--trainer.strategy=ddp", "--data.evaluation_batch_size=8", "--run.test_trained=false",
        "--trainer.max_epochs=60", "--trainer.check_val_every_n_epoch=60",
        "--trainer.callbacks+=" + json.dumps(EVERY_FIVE_STEPS),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    first = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 200
    while not list((tmp_path / "runs/two/checkpoints").glob("step=*.ckpt")):
        assert first.poll() is None, first.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)
    first.send_signal(number)
    said = first.communicate(timeout=60)[1]
    assert first.returncode == status, said
    assert "run the same command again" in said
    assert "Traceback" not in said
    second = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert second.returncode == 0, second.stderr
    assert "step=" in second.stderr + second.stdout  # the checkpoint that it went on from
    assert losses(tmp_path / "runs/two")[-1][0] > 150
