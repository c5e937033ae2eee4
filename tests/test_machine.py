"""Settings of the machine are applied when a command starts, told in the record, and keep memory where they say so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from g2r_lightning.errors import ConfigError
from g2r_lightning.machine import MachineSettings, _free_in_group, free_memory, matmul_peak, native_precision
from tiny_experiment import run, write_experiment

FAULTS = """
import resource, sys, torch
from g2r_lightning.machine import MachineSettings
facts = MachineSettings(keep_memory=sys.argv[1] == "keep").apply()
def step():
    return torch.full((1 << 24,), 1.0)  # 64 MiB: glibc learns by itself to keep blocks of up to 32 MiB
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, facts["keeps_memory"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can be told to keep memory")
def test_kept_memory_is_not_fetched_anew_every_step() -> None:
    faults = {}
    for way in ("keep", "return"):
        done = subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True)
        count, kept = done.stdout.split()
        assert kept == str(way == "keep")
        faults[way] = int(count)
    assert faults["keep"] < 0.7 * faults["return"]  # those that are left come from blocks moved in the heap


@pytest.mark.parametrize(
    ("able", "accelerator", "chosen"),
    [
        ({"avx512_bf16": True}, "cpu", "bf16-mixed"),
        ({"amx_bf16": True}, "auto", "bf16-mixed"),
        ({"avx512_bf16": False, "avx2": True}, "cpu", "32-true"),
        ({}, "auto", "32-true"),
        ({"avx512_bf16": True}, "tpu", "32-true"),
    ],
)
def test_bf16_where_the_cpu_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], accelerator: str, chosen: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert native_precision(accelerator) == chosen


def test_bf16_on_a_gpu_that_has_it_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for able in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, able=able: able)
        assert native_precision("auto") == native_precision("gpu") == ("bf16-mixed" if able else "32-true")


def test_the_peak_is_of_this_machine_and_leaves_the_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    peak = matmul_peak(torch.device("cpu"), torch.float32, rounds=1)
    assert 1e8 < peak < 1e14
    assert torch.equal(torch.get_rng_state(), state)


def test_the_record_tells_what_was_used(tmp_path: Path) -> None:
    experiment, threads = write_experiment(tmp_path), torch.get_num_threads()
    try:
        flags = (
            "--trainer.max_epochs=1",
            "--run.test_trained=false",
            "--machine.matmul_precision=high",
            "--trainer.precision=null",
        )
        assert run("fit", experiment, *flags, "--machine.threads=1") == 0
        record = json.loads((tmp_path / "runs/first/record.json").read_text())
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")
    assert record["used"]["threads"] == 1
    assert record["used"]["matmul_precision"] == "high"
    assert record["used"]["precision"] == native_precision("cpu")
    assert record["used"]["allocator"].keys() <= os.environ.keys()
    assert record["peak_gflops"] >= 0


IMPORTED = """
import os, pkgutil, importlib, random, signal
import numpy, torch, transformers, lightning.pytorch

def state():
    return [
        torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_float32_matmul_precision(),
        torch.get_default_dtype(), dict(os.environ), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM),
        random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
    ]

before = state()
import g2r_lightning
names = [one.name for one in pkgutil.walk_packages(g2r_lightning.__path__, "g2r_lightning.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
assert len(names) > 200
assert state() == before
"""


def test_no_module_changes_anything_when_it_is_imported() -> None:
    """Threads, precision, environment, signals, random numbers: commands set them, and only when they run."""
    subprocess.run([sys.executable, "-c", IMPORTED], check=True, capture_output=True)


@pytest.mark.parametrize(("threads", "told"), [(0, "at least 1"), (1_000_000, "this machine has")])
def test_threads_that_no_machine_has_are_refused(threads: int, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"machine\.threads={threads}: {told}"):
        MachineSettings(threads=threads).apply()


def test_free_memory_is_what_the_machine_or_the_container_has_left(tmp_path: Path) -> None:
    free = free_memory()
    assert free is not None
    assert 1 << 20 < free < 1 << 45
    assert _free_in_group(tmp_path) is None
    new = {"memory.max": "max\n", "memory.current": "700\n", "memory.stat": "anon 5\ninactive_file 200\n"}
    for name, text in new.items():
        (tmp_path / name).write_text(text)
    assert _free_in_group(tmp_path) is None  # no limit
    (tmp_path / "memory.max").write_text("1000\n")
    assert _free_in_group(tmp_path) == 1000 - 700 + 200
    old = tmp_path / "old" / "memory"
    old.mkdir(parents=True)
    files = {"memory.limit_in_bytes": "50", "memory.usage_in_bytes": "60", "memory.stat": "total_inactive_file 4"}
    for name, text in files.items():
        (old / name).write_text(text)
    assert _free_in_group(tmp_path / "old") == 0
