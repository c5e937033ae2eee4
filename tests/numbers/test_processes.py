"""One run on 1, 2 and 4 processes: the same losses, figures and index. Minutes: `make test-slow`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tiny_experiment import results, write_experiment

pytestmark = pytest.mark.slow
GLOBAL_BATCH = 16
FLAGS = (
    "--data.negatives.in_batch=true", "--model.encoder.dropout=0", "--model.optimizer.lr=0.01",
    "--trainer.max_epochs=4", "--trainer.callbacks=g2r_lightning.callbacks.RetrievalEvaluation",
    "--trainer.callbacks.progress=false", "--trainer.precision=32-true",
)  # fmt: skip


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("processes"))


def trained(experiment: Path, processes: int) -> Path:
    """Train on so many processes, batches of the whole step being the same; return the run's folder."""
    strategy = ["--trainer.strategy=ddp"] if processes > 1 else []
    words = [
        sys.executable, "-m", "g2r_lightning", "fit", "-c", str(experiment), f"--run.name=on{processes}",
        f"--data.batch_size={GLOBAL_BATCH // processes}", f"--trainer.devices={processes}", *strategy, *FLAGS,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert ran.returncode == 0, ran.stderr
    return experiment.parent / "runs" / f"on{processes}"


@pytest.fixture(scope="module")
def alone(experiment) -> Path:
    return trained(experiment, 1)


def losses(folder: Path) -> list[float]:
    return [event.value for event in EventAccumulator(str(folder)).Reload().Scalars("train/loss")]


@pytest.mark.parametrize("processes", [2, 4])
def test_losses_figures_and_index_are_those_of_one_process(experiment, alone, processes):
    shared = trained(experiment, processes)
    expected = losses(alone)
    assert len(expected) == 12
    assert expected[-1] < expected[0] - 0.05  # something was learnt, so gradients matter
    assert losses(shared) == pytest.approx(expected, abs=1e-5)
    assert results(shared, "test") == pytest.approx(results(alone, "test"), abs=1e-5)
    one, other = (np.load(folder / "index" / "embeddings.npy") for folder in (alone, shared))
    assert np.abs(one - other).max() < 1e-4
    for name in ("responses.arrow", "student/student.json"):
        assert (alone / "index" / name).read_bytes() == (shared / "index" / name).read_bytes()
