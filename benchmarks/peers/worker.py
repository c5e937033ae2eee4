"""How one way of doing a job is driven: a process of its own that measures itself whenever it is told to.

``python <script> job.json`` reads the job, loads what it needs, and then answers each line of its standard input,
``warm-up`` or ``round``, with one JSON line on its standard output. So several ways stay loaded side by side and take
turns (A/B/A/B), each in its own virtual environment. Whatever a library prints goes to the standard error.

Only the standard library is used here: this file runs in every peer's environment.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

Run = Callable[[bool], dict[str, Any]]


class Unavailable(Exception):  # noqa: N818 - a state, not a fault
    """This way cannot be measured here; the message says why."""


class Stopwatch:
    """Wall time, and CPU time of all threads of this process, between :meth:`start` and :meth:`stop`."""

    def __init__(self) -> None:
        self._wall = self._cpu = 0.0
        self.elapsed: dict[str, float] = {}

    def start(self) -> None:
        """Begin."""
        wait_for_device()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """End, and keep ``seconds`` and ``cpu_seconds`` in :attr:`elapsed`."""
        wait_for_device()
        self.elapsed = {"seconds": time.perf_counter() - self._wall, "cpu_seconds": time.process_time() - self._cpu}


def wait_for_device() -> None:
    """Wait for a GPU's queue, where there is one: its work is launched, not done, when a call returns."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def serve(prepare: Callable[[dict[str, Any]], Run], packages: tuple[str, ...]) -> None:
    """Prepare once, then measure once a line of the standard input.

    Args:
        prepare: takes the job, returns ``run(warm_up)``; ``run`` returns at least what :class:`Stopwatch` keeps, a
            warm-up may do a small part of the work.
        packages: distributions whose versions belong to the result.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    spare_the_machine()

    def answer(found: dict[str, Any]) -> None:
        print(json.dumps(found), file=answers, flush=True)

    try:
        run = prepare(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
        answer({"ready": True, "versions": {name: _version(name) for name in packages}, "threads": threads()})
        for line in sys.stdin:
            found = run(line.strip() == "warm-up")
            give_memory_back()
            answer(found)
    except Unavailable as reason:
        answer({"missing": str(reason)})
    except BaseException as error:  # the harness must hear of it, whatever it is
        traceback.print_exc()
        answer({"missing": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})


def spare_the_machine() -> None:
    """Let a job that wants more memory than is free fail by itself, not by the kernel's choice of a victim."""
    free = [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable")]
    if free:
        limit = int(0.9 * free[0])
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def give_memory_back() -> None:
    """Hand freed memory back to the system: the C library keeps gigabytes of it while the other ways measure."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def threads() -> int | None:
    """Return the threads that torch computes with; ``None`` where there is no torch."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def reset_peak_memory() -> int:
    """Forget the peak of this process's resident memory, and return the present one in bytes (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def peak_memory() -> int:
    """Return the largest resident memory since :func:`reset_peak_memory`, in bytes (Linux)."""
    return _status("VmHWM")


def _status(key: str) -> int:
    return next(int(line.split()[1]) * 1024 for line in _lines("/proc/self/status") if line.startswith(f"{key}:"))


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return []


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
