"""Measure several ways of doing one job side by side, so that nothing but the way differs.

Every way is a process of its own, in its own virtual environment where it is a peer's, loaded and warmed up before
anything is timed. The ways take turns, round after round (A/B/A/B), each with the same pinned threads, so that whatever
slows the machine for a while slows all of them; the figure is the median of a way's rounds, wall time and CPU time. On
a machine that is busy with something else nothing is measured, unless that is asked for, and then the result says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from g2r_lightning.errors import G2RError
from g2r_lightning.runs import environment, now

HERE = Path(__file__).parent
WORK = Path(".bench")
RESULTS = Path("docs/results/performance")
OURS = "ours"
LOAD_LIMIT = 0.15  # cores that other processes may take while we measure
NO_CUDA = {"CUDA_VISIBLE_DEVICES": ""}
FLAGS = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile",
         "amx_bf16", "amx_int8")  # fmt: skip


class BusyMachineError(G2RError):
    """Other processes take the cores that should be measured."""


class PeerError(G2RError):
    """A peer's environment cannot be made."""


@dataclass(frozen=True)
class Way:
    """One way of doing a job.

    Args:
        label: its name in the table.
        peer: name of ``benchmarks/peers/<peer>.py`` and of its environment; ``ours`` is ``benchmarks/ours.py`` here.
        key: which way the script should take, where it knows several.
        settings: what this way's job has besides the settings that all ways share.
    """

    label: str
    peer: str
    key: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """What is done, by which ways.

    Args:
        name: of the result file.
        title: heading on the page.
        about: one paragraph on what is measured.
        unit: what a second's work is counted in.
        settings: what every way's script is told.
        ways: in the order of a round.
        rounds: of measurement.
        together: keep all ways loaded and let them take turns; else each runs alone, from start to end, cold.
        facts: sizes and whatever else a reader should know.
    """

    name: str
    title: str
    about: str
    unit: str
    settings: dict[str, Any]
    ways: list[Way]
    rounds: int
    together: bool = True
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Conditions:
    """What holds for all jobs of a run.

    Args:
        command: that was given.
        threads: of every way.
        device: ``cpu`` or ``cuda``.
        allow_load: measure though the machine is busy.
        bfloat16: whether this machine is good at it.
    """

    command: str
    threads: int
    device: str = "cpu"
    allow_load: bool = False
    bfloat16: bool = False


class Worker:
    """One way's process.

    Args:
        way: which.
        job: of which job.
        conditions: of the run.

    Raises:
        PeerError: its environment cannot be made.
    """

    def __init__(self, way: Way, job: Job, conditions: Conditions) -> None:
        self.name = name = f"{job.name}-{way.peer}-{way.key or 'only'}"
        told = {
            **job.settings, **way.settings, "name": job.name, "way": way.key, "threads": conditions.threads,
            "device": conditions.device, "bfloat16": conditions.bfloat16, "scratch": str(scratch()),
        }  # fmt: skip
        path = scratch() / f"{name}.job.json"
        path.write_text(json.dumps(told), encoding="utf-8")
        script = HERE / "ours.py" if way.peer == OURS else HERE / "peers" / f"{way.peer}.py"
        python = sys.executable if way.peer == OURS else peer_python(way.peer)
        self.log = scratch() / f"{name}.log"
        with self.log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [python, str(script), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env=pinned(conditions),
            )  # fmt: skip

    def answer(self) -> dict[str, Any]:
        """Return the next line of the process; ``missing`` says why where there is none."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        return {"missing": f"the process ended with status {self._process.wait()}"}

    def ask(self, what: str) -> dict[str, Any]:
        """Let the process do ``warm-up`` or a ``round`` and return what it measured."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(what + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"missing": f"the process ended with status {self._process.wait()}"}
        return self.answer()

    def close(self) -> None:
        """End the process, which stops where its standard input does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def measure(job: Job, conditions: Conditions) -> dict[str, Any]:
    """Measure a job and return its result, as the file holds it.

    Raises:
        BusyMachineError: the machine is busy, and that is not allowed.
    """
    before = refuse_load(conditions.allow_load)
    found = _turns(job, conditions) if job.together else _one_by_one(job, conditions)
    after = foreign_load()
    return {
        "job": job.name,
        "title": job.title,
        "about": job.about,
        "unit": job.unit,
        "facts": job.facts,
        "command": conditions.command,
        "made": now(),
        "device": conditions.device,
        "threads": conditions.threads,
        "load_of_others_in_cores": {"before": round(before, 2), "after": round(after, 2)},
        "busy": max(before, after) > LOAD_LIMIT,
        "ways": found,
        "machine": machine(),
    }


def _turns(job: Job, conditions: Conditions) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        started = {way.label: _started(way, job, conditions, stack) for way in job.ways}  # they load side by side
        workers: dict[str, Worker] = {}
        for label, worker in started.items():
            found[label] = _ready(worker)
            if isinstance(worker, Worker) and "missing" not in found[label]:
                workers[label] = worker
        for what in ["warm-up", *["round"] * job.rounds]:
            for label, worker in list(workers.items()):
                if not _asked(worker, what, found[label]):
                    del workers[label]
    return found


def _one_by_one(job: Job, conditions: Conditions) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(job.rounds):
        for way in job.ways:
            with ExitStack() as stack:
                worker = _started(way, job, conditions, stack)
                start = _ready(worker)
                told = found.setdefault(way.label, start)
                if isinstance(worker, Worker) and "missing" not in {**told, **start}:
                    _asked(worker, "round", told)
    return found


def _started(way: Way, job: Job, conditions: Conditions, stack: ExitStack) -> Worker | PeerError:
    """Start a way's process, which ends with the stack; the error where its environment cannot be made."""
    try:
        worker = Worker(way, job, conditions)
    except PeerError as error:
        return error
    stack.callback(worker.close)
    return worker


def _ready(worker: Worker | PeerError) -> dict[str, Any]:
    """Wait until a way is loaded; returns the beginning of its result, or why there will be none."""
    said = {"missing": str(worker)} if isinstance(worker, PeerError) else worker.answer()
    if "missing" in said:
        print(f"  missing: {said['missing']}", flush=True)
        return {"missing": said["missing"]}
    return {"versions": said["versions"], "threads": said["threads"], "rounds": []}


def _asked(worker: Worker, what: str, told: dict[str, Any]) -> bool:
    """Let a way do a round and keep what it measured; False where it failed, which empties its result."""
    said = worker.ask(what)
    if "missing" in said:
        print(f"  {worker.name}: missing: {said['missing']}", flush=True)
        told.clear()
        told["missing"] = said["missing"]
        return False
    if what == "round":
        told["rounds"].append(said)
    print(f"  {worker.name}: {what}: {said['seconds']:.1f} s", flush=True)
    return True


def pinned(conditions: Conditions) -> dict[str, str]:
    """Return the environment of every way: the same threads for all libraries, and no network."""
    number = str(conditions.threads)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_", "KMP_", "GOMP_"))}
    return {
        **kept, "OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, "OPENBLAS_NUM_THREADS": number,
        "RAYON_NUM_THREADS": number, "TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1", **(NO_CUDA if conditions.device == "cpu" else {}),
    }  # fmt: skip


def scratch() -> Path:
    """Return the folder of job files, logs and vectors."""
    folder = WORK / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


def peer_python(peer: str) -> str:
    """Return the Python of a peer's own environment, which is made where it is not there or was made otherwise.

    Raises:
        PeerError: it cannot be installed; names the log.
    """
    wanted = HERE / "peers" / f"{peer}.txt"
    folder = (WORK / f"venv-{peer}").absolute()
    python, mark = folder / "bin" / "python", folder / "installed"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if mark.is_file() and mark.read_text(encoding="ascii") == digest:
        return str(python)
    WORK.mkdir(exist_ok=True)
    log = WORK / f"install-{peer}.log"
    print(f"  making the environment of {peer} ({log})", flush=True)
    with log.open("w", encoding="utf-8") as file:
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-r", str(wanted)],
        ):
            if subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode:
                last = [line for line in log.read_text(encoding="utf-8").splitlines() if "ERROR" in line][-1:]
                raise PeerError(f"does not install: {' '.join(last) or 'see the log'} ({log})")
    mark.write_text(digest, encoding="ascii")
    return str(python)


def foreign_load(seconds: float = 1.0) -> float:
    """Return how many cores other processes keep busy, measured over this time; this process's own tree apart."""
    own = _own_seconds()
    before, begun = psutil.cpu_times(), time.perf_counter()
    time.sleep(seconds)
    after, taken = psutil.cpu_times(), time.perf_counter() - begun
    return busy_cores(before._asdict(), after._asdict(), taken, _own_seconds() - own)


def busy_cores(before: dict[str, float], after: dict[str, float], seconds: float, own: float) -> float:
    """Return the cores kept busy by others between two readings of the system's CPU times.

    Args:
        before: seconds by kind, summed over all cores.
        after: the same, later.
        seconds: between the two.
        own: CPU seconds that this benchmark's processes took in between.
    """
    idle = ("idle", "iowait", "guest", "guest_nice")  # guests are part of user time already
    worked = sum(after[kind] - before[kind] for kind in after if kind not in idle)
    return max(0.0, worked - own) / seconds


def _own_seconds() -> float:
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def refuse_load(allow: bool, load: float | None = None) -> float:
    """Return the load of other processes in cores.

    Args:
        allow: whether a busy machine will do.
        load: what was measured; measured now where ``None``.

    Raises:
        BusyMachineError: it will not; says how to measure nevertheless.
    """
    load = foreign_load() if load is None else load
    if load > LOAD_LIMIT and not allow:
        raise BusyMachineError(
            f"other processes keep {load:.1f} cores busy; figures from a loaded machine mislead. Wait until it is "
            "idle, or measure nevertheless with --allow-load, which marks the results"
        )
    return load


def median(rounds: Sequence[dict[str, Any]], key: str = "seconds") -> float:
    """Return the median of a figure over the rounds."""
    return statistics.median(one[key] for one in rounds)


def ratio(slow: Sequence[dict[str, Any]], fast: Sequence[dict[str, Any]], key: str = "seconds") -> dict[str, float]:
    """Return how many times faster one way was than another, by the work done a second.

    Args:
        slow: rounds of the way that is compared with.
        fast: rounds of the other, each beside the round of the same number.
        key: ``seconds`` or ``cpu_seconds``.

    Returns:
        ``ratio`` of the medians; ``low`` and ``high``, the smallest and largest ratio of two rounds side by side.
    """

    def cost(one: dict[str, Any]) -> float:
        return float(one[key]) / float(one["units"])

    sides = [cost(a) / cost(b) for a, b in zip(slow, fast, strict=False)]
    middle = statistics.median(map(cost, slow)) / statistics.median(map(cost, fast))
    return {"ratio": middle, "low": min(sides), "high": max(sides)}


def good_at_bfloat16(flags: Sequence[str], device: str = "cpu") -> bool:
    """Whether bfloat16 is quick here: the CPU has instructions for it, or the GPU is of Ampere's kind or later."""
    if device == "cpu":
        return bool({"avx512_bf16", "amx_bf16"} & set(flags))
    import torch

    return torch.cuda.get_device_capability() >= (8, 0)


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    about = environment()
    return {
        **about["machine"], "threads": None, "processor": _cpu_field("model name") or platform.processor(),
        "flags": cpu_flags(), "memory_gb": round(psutil.virtual_memory().total / 1e9, 1), "python": about["python"],
        "g2r_lightning": about["g2r_lightning"], "git": about["git"],
    }  # fmt: skip


def cpu_flags() -> list[str]:
    """Return those of the CPU's instruction sets that matter here."""
    present = set(_cpu_field("flags").split())
    return [flag for flag in FLAGS if flag in present]


def _cpu_field(name: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")


def write_result(result: dict[str, Any]) -> Path:
    """Write a result as ``docs/results/performance/<job>.json``, on a GPU ``<job>-cuda.json``."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / (result["job"] + ("" if result["device"] == "cpu" else f"-{result['device']}") + ".json")
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path
