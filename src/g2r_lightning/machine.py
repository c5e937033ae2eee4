"""What a machine can do, and how a command uses it: threads, precision of products, memory between steps, free memory.

A training step on a CPU takes hundreds of megabytes and gives them back. The C library hands them back to the system,
which zeroes every page before the next step gets it. ``keep_memory`` makes glibc keep them. Nothing here happens at
import: a command applies its settings when it starts, and the run's record tells them.
"""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from g2r_lightning.cpu import cpu_multiplies_bf16
from g2r_lightning.errors import ConfigError

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
KEPT_BYTES, PAD_BYTES = 2**31 - 1, 2**28  # the former is the largest that mallopt takes
ALLOCATOR_SETTINGS = ("LD_PRELOAD", "GLIBC_TUNABLES", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
PEAK_SIZE = 2048
THREADS_A_CORE = 16


@dataclass(frozen=True)
class MachineSettings:
    """How a command uses the machine; results change by rounding only.

    Args:
        threads: of torch on the CPU; ``null`` leaves what OMP_NUM_THREADS says, else torch's choice.
        matmul_precision: of float32 products on a GPU: ``high`` allows TF32, ``medium`` bf16.
        keep_memory: let glibc keep what a step frees for the next one. The process then holds its peak until it ends;
            without effect where the C library is another.
    """

    threads: int | None = None
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    keep_memory: bool = False

    def apply(self) -> dict[str, Any]:
        """Set all of it for this process, and return what the run's record should tell.

        Raises:
            ConfigError: a setting is out of its range.
        """
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"machine.threads={self.threads}: at least 1, or null")
        cores = os.cpu_count() or 1
        if self.threads is not None and self.threads > THREADS_A_CORE * cores:  # thousands end the process
            raise ConfigError(
                f"machine.threads={self.threads}: this machine has {cores} cores, and {THREADS_A_CORE} threads for "
                "each are the most that is taken; one for each is the fastest"
            )
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        torch.set_float32_matmul_precision(self.matmul_precision)
        kept = self.keep_memory and keep_freed_memory()
        return {
            "threads": torch.get_num_threads(),
            "interop_threads": torch.get_num_interop_threads(),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "keeps_memory": kept,
            "allocator": {
                name: value
                for name, value in os.environ.items()
                if name in ALLOCATOR_SETTINGS or name.startswith("MALLOC_")
            },
        }


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory instead of giving it back to the system.

    Returns:
        Whether it agreed; another library than glibc has no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    settings = ((M_MMAP_THRESHOLD, KEPT_BYTES), (M_TRIM_THRESHOLD, KEPT_BYTES), (M_TOP_PAD, PAD_BYTES))
    return all(bool(mallopt(*setting)) for setting in settings)


def free_memory() -> int | None:
    """Return the bytes that this process may still take, or ``None`` where the system does not tell.

    Within a container that is what its control group leaves, if that is less than what the machine has.
    """
    known = [left for left in (_free_on_machine(), _free_in_group(Path("/sys/fs/cgroup"))) if left is not None]
    return min(known, default=None)


def _free_on_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:  # elsewhere: half of what there is, since nobody says what others hold
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return None


def _free_in_group(folder: Path) -> int | None:
    """Return what a control group (version 2, else 1) may still take; its page cache counts as free."""
    places = (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    )
    for limit, usage, statistics, cached in places:
        try:
            most, used = (int((folder / name).read_text(encoding="utf-8")) for name in (limit, usage))
            told = dict(line.split() for line in (folder / statistics).read_text(encoding="utf-8").splitlines())
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
        return max(most - used + int(told.get(cached, 0)), 0)
    return None


def native_precision(accelerator: str) -> Literal["bf16-mixed", "32-true"]:
    """Return the trainer's precision where none was chosen: bfloat16 where it is fast, never where it is emulated.

    Args:
        accelerator: the trainer's: ``auto``, ``cpu``, ``gpu`` or another, for which float32 is the safe choice.
    """
    cuda = torch.cuda.is_available()
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and cuda):
        return "bf16-mixed" if cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    fast = accelerator in ("auto", "cpu") and cpu_multiplies_bf16()
    return "bf16-mixed" if fast else "32-true"


def matmul_peak(device: torch.device, dtype: torch.dtype, rounds: int = 3) -> float:
    """Measure what the device reaches at most: the median product of two square matrices.

    Args:
        device: to measure.
        dtype: of the matrices.
        rounds: products timed, after one that is not.

    Returns:
        Floating-point operations a second.
    """
    # no random numbers: training's own would be others for it
    left, right = (torch.full((PEAK_SIZE, PEAK_SIZE), value, device=device, dtype=dtype) for value in (0.5, 0.25))
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        product = left @ right
        float(product[0, 0])  # waits for a GPU
        times.append(time.perf_counter() - start)
    return 2 * PEAK_SIZE**3 / median(times[1:])
