"""What must change nothing: how a checkpoint is evaluated, and which workers make its batches."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from g2r_lightning.data import DialogueDataModule
from g2r_lightning.data.training_set import NegativeSampling
from g2r_lightning.dialogue.readers import JsonlReader
from g2r_lightning.student import StudentText
from tiny_experiment import results, run

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")

ONE_BY_ONE = {
    "batches of 1": ["--data.evaluation_batch_size=1"],
    "batches of 3": ["--data.evaluation_batch_size=3"],
    "one batch": ["--data.evaluation_batch_size=1000"],
    "chunks of 24 tokens": ["--model.encoder.token_budget=24"],
    "no chunks": ["--model.encoder.token_budget=null"],
    "cached gradients": ["--model.encoder.cached_gradients=true"],
    "another order of the files": ["reversed"],
    "2 threads, memory kept": ["--machine.threads=2", "--machine.keep_memory=true"],
    "2 workers": ["--data.num_workers=2"],
    "another order of length": ["--data.length_grouping=false", "--data.batch_size=3"],
}
TOGETHER = ["reversed", "--data.evaluation_batch_size=3", "--model.encoder.token_budget=24"]


def evaluated(fitted: Path, folder: Path, *flags: str, apart: bool = False) -> dict[str, float]:
    """Return the figures of the shared run's checkpoint, evaluated otherwise.

    Args:
        fitted: the shared experiment.
        folder: for the files.
        flags: settings; ``reversed`` turns the files of dialogues round.
        apart: in a process of its own: threads and the allocator's settings stay with a process, and a fork behind
            OpenMP's threads waits for ever.
    """
    words = [flag for flag in flags if flag != "reversed"]
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("one", "two"):
        lines = (fitted.parent / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        ordered = lines[::-1] if "reversed" in flags else lines
        (folder / f"{name}.jsonl").write_text("\n".join(ordered) + "\n", encoding="utf-8")
        words.append(f"--data.test.{name}.path={folder}/{name}.jsonl")
    first = fitted.parent / "runs" / "first"
    best = json.loads((first / "record.json").read_text(encoding="utf-8"))["best_checkpoint"]
    words += [f"--run.root={folder}/runs", "--run.name=again", "--trainer.precision=32-true"]
    words.append(f"--ckpt_path={first / 'checkpoints' / best}")
    if apart:
        program = [sys.executable, "-m", "g2r_lightning", "test", "-c", str(fitted), *words]
        subprocess.run(program, check=True, capture_output=True, timeout=300)
    else:
        assert run("test", fitted, *words) == 0
    found = next((folder / "runs" / "again" / "results").glob("*.json"))
    return {key: value for key, value in results(folder / "runs" / "again", found.stem).items() if "/" in key}


@pytest.fixture(scope="module")
def plain(fitted, tmp_path_factory):
    return evaluated(fitted, tmp_path_factory.mktemp("plain"))


def test_many_settings_at_once_change_no_figure(fitted, plain, tmp_path):
    found = evaluated(fitted, tmp_path, *TOGETHER)
    assert len(plain) > 20
    assert found == pytest.approx(plain, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_ten_settings_change_no_figure(fitted, plain, tmp_path, name):
    assert evaluated(fitted, tmp_path, *ONE_BY_ONE[name], apart=True) == pytest.approx(plain, abs=1e-5)


def test_another_checkpoint_does_change_them(fitted, plain, tmp_path):
    """Else the comparison could not fail."""
    folder = tmp_path / "runs"
    assert run("test", fitted, f"--run.root={folder}", "--ckpt_path=none", "--trainer.precision=32-true") == 0
    (path,) = (folder / "first" / "results").glob("*.json")
    assert results(folder / "first", path.stem) != pytest.approx(plain, abs=1e-5)
    shutil.rmtree(folder)


def test_workers_make_the_batches_of_the_main_process(fitted, tmp_path):
    def batches(workers: int) -> list[list[torch.Tensor]]:
        data = DialogueDataModule(
            [JsonlReader(str(fitted.parent / "train.jsonl"))], negatives=NegativeSampling(5, in_batch=True),
            batch_size=7, num_workers=workers, seed=3, cache_dir=str(tmp_path),
        )  # fmt: skip
        data.prepare_for(
            StudentText(max_context_tokens=24, max_response_tokens=12).bind(str(fitted.parent / "encoder"))
        )
        return [[part for part in batch if isinstance(part, torch.Tensor)] for batch in data.train_dataloader()]

    alone = batches(0)
    assert len(alone) == 7
    for workers in (1, 2):
        made = batches(workers)
        assert len(made) == len(alone)
        for one, other in zip(made, alone, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
