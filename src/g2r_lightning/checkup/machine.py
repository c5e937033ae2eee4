"""What this machine has, and which of it training would use: CPU, threads, memory, GPU, disk, places to write."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from g2r_lightning.checkup.finding import Finding, Level
from g2r_lightning.checkup.sizes import GB, existing, size
from g2r_lightning.cpu import cpu_flags, cpu_multiplies_bf16, cpu_name
from g2r_lightning.machine import free_memory, native_precision

SECTION = "machine"
LITTLE_MEMORY, LITTLE_DISK, LITTLE_SHARED = 4 * GB, 5 * GB, GB // 4
FEW_FILES = 1024
TOLD_FLAGS = ("avx2", "avx512_f", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "sve", "bf16")


def machine_findings(folder: Path) -> list[Finding]:
    """Look at this machine.

    Args:
        folder: where runs, stores and caches are going to be.
    """
    return [
        Finding(SECTION, "ok", platform.platform()),
        _cpu(),
        _threads(torch.get_num_threads(), usable_cores(), os.environ.get("OMP_NUM_THREADS")),
        *_gpu(),
        _memory(free_memory()),
        _disk(folder),
        *_shared_memory(Path("/dev/shm")),  # noqa: S108 - a look at its size
        *_open_files(),
        *_hub(),
    ]


def usable_cores() -> float:
    """Return how many cores this process may use: its affinity, and the quota of its control group (version 2)."""
    able = getattr(os, "sched_getaffinity", None)
    cores: float = len(able(0)) if able is not None else (os.cpu_count() or 1)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError):  # no such group, or "max": no quota
        return cores


def write_findings(places: Sequence[tuple[str, Path]], section: str = SECTION) -> list[Finding]:
    """Try to write a file where each of these would be.

    Args:
        places: (what, folder); the nearest folder above that exists is tried.
        section: of the findings.
    """
    findings = []
    for what, folder in places:
        place = existing(folder)
        try:
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(b"\0")
        except OSError as error:
            text = f"{what}: {place} cannot be written to ({error.strerror or error})"
            findings.append(Finding(section, "problem", text, "choose another place, or mend its permissions"))
        else:
            findings.append(Finding(section, "ok", f"{what}: {folder} can be written to"))
    return findings


def _cpu() -> Finding:
    best = torch.backends.cpu.get_cpu_capability()
    told = [name for name in TOLD_FLAGS if name in cpu_flags()]
    kind = cpu_name()
    text = f"CPU: {platform.machine() if kind == 'unknown' else kind}, {best}"
    text += f" ({', '.join(told)})" if told else ""
    if best in ("DEFAULT", "NO AVX"):
        remedy = "training takes several times longer than on a CPU with AVX2; prefer another machine"
        return Finding(SECTION, "warning", f"{text}: no vector instructions that torch knows", remedy)
    products = "multiplies in bfloat16" if cpu_multiplies_bf16() else "float32 (bfloat16 would be emulated)"
    return Finding(SECTION, "ok", f"{text}; {products}: --trainer.precision is {native_precision('cpu')} on it")


def _threads(threads: int, cores: float, asked: str | None) -> Finding:
    text = f"{threads} threads of torch on {cores:g} usable cores"
    text += f" (OMP_NUM_THREADS={asked})" if asked else ""
    if threads > cores + 0.5:
        remedy = f"they wait for each other: --machine.threads={max(int(cores), 1)}"
        return Finding(SECTION, "warning", text, remedy)
    if threads < cores / 2:  # torch takes half of what hyperthreading shows
        remedy = "training uses a part of the CPU: unset OMP_NUM_THREADS, or set --machine.threads"
        return Finding(SECTION, "warning", text, remedy)
    return Finding(SECTION, "ok", text)


def _gpu() -> list[Finding]:
    if torch.cuda.is_available():
        found = []
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            text = f"GPU {number}: {torch.cuda.get_device_name(number)}, {size(free)} of {size(total)} free"
            found.append(Finding(SECTION, "ok", f"{text}: --trainer.precision is {native_precision('gpu')} on it"))
        return found
    if torch.version.cuda is not None:
        text = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}, and there is no GPU that it can use"
        remedy = "mend the driver if there is one; else the CPU build of torch saves several GB"
        return [Finding(SECTION, "warning", text, remedy)]
    return [Finding(SECTION, "ok", "no GPU: everything runs on the CPU")]


def _memory(free: int | None) -> Finding:
    if free is None:
        return Finding(SECTION, "warning", "free memory is unknown here", "set --index.memory_limit yourself")
    level: Level = "warning" if free < LITTLE_MEMORY else "ok"
    remedy = "close other programs; --model.encoder.cached_gradients=true and smaller batches need less"
    return Finding(SECTION, level, f"{size(free)} of memory are free", remedy if level == "warning" else "")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(existing(folder)).free
    level: Level = "warning" if free < LITTLE_DISK else "ok"
    remedy = "`python -m g2r_lightning clean` lists what could go"
    return Finding(SECTION, level, f"{size(free)} of disk are free at {folder}", remedy if level == "warning" else "")


def _shared_memory(place: Path) -> list[Finding]:
    """Look at what data workers hand their batches over in; small in containers."""
    if not place.is_dir():
        return []
    total = shutil.disk_usage(place).total
    if total >= LITTLE_SHARED:
        return []
    remedy = "keep --data.num_workers=0, or give the container more (--shm-size)"
    return [Finding(SECTION, "warning", f"{size(total)} of shared memory ({place}): too little for workers", remedy)]


def _open_files() -> list[Finding]:
    try:
        import resource
    except ImportError:  # Windows
        return []
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= FEW_FILES or soft == resource.RLIM_INFINITY:
        return []
    return [Finding(SECTION, "warning", f"only {soft} files may be open at a time", f"ulimit -n {FEW_FILES}")]


def _hub() -> list[Finding]:
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "ON", "YES", "TRUE"}:
        return [Finding(SECTION, "ok", "HF_HUB_OFFLINE is set: models come from folders, packages and the hub's cache")]
    return []
