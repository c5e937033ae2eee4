"""A parent that has imported everything once, and forks a real process for every command: hundreds become affordable.

It reads one request a line from its input, ``{"words": [...], "folder": ..., "fault": {...}}``, and writes one answer a
line: exit status (negative for the signal that killed the process), seconds, and what was said. A fault is one of

* ``{"signal": 9, "event": 17}``: the process sends itself the signal before its 17th change of the folder (a file
  opened for writing, a rename, a removal, a folder made; Python tells of them by audit events);
* ``{"signal": 15, "after": 0.3}``: the parent sends it after so many seconds;
* ``{"error": 28, "event": 17}``: the 17th change and all after it fail with that error, as on a full disk;
* ``{"size": 4096}``: no file may grow beyond so many bytes, whoever writes it (``RLIMIT_FSIZE``);
* ``{"bound": true}``: permissions bind the process, as they bind everybody but root.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")


class Trap:
    """Count the changes of a folder, and do something at one of them.

    Args:
        folder: whose changes.
        fault: see the module.
    """

    def __init__(self, folder: str, fault: dict[str, Any]) -> None:
        self.folder = folder
        self.at = fault.get("event")
        self.signal = fault.get("signal")
        self.error = fault.get("error")
        self.seen = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if not isinstance(path, str | bytes | os.PathLike):
            return
        if not os.path.abspath(os.fsdecode(path)).startswith(self.folder):  # noqa: PTH100 - no question to the disk
            return
        self.seen += 1
        if self.at is None or self.seen < self.at:
            return
        if self.error is not None and event != "os.remove":
            raise OSError(self.error, os.strerror(self.error), os.fsdecode(path))
        if self.signal is not None and self.seen == self.at:
            os.kill(os.getpid(), self.signal)


def bind() -> None:
    """Let go of root's capability to write where permissions forbid it (Linux; others are bound anyway)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    if libc.capget(header, sets) == 0:
        sets[0] &= ~(1 << 1)  # CAP_DAC_OVERRIDE
        libc.capset(header, sets)


def run(words: list[str], folder: str, fault: dict[str, Any], told: int) -> int:
    """Be the command, in the process that was made for it."""
    os.chdir(folder)
    if "size" in fault:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault["size"], fault["size"]))
    if "bound" in fault:
        bind()
    trap = Trap(folder, fault)
    sys.addaudithook(trap)
    from g2r_lightning.cli import main

    sys.argv = ["g2r_lightning", *words]
    os.write(told, b".")  # from here on a signal meets the command, before it the harness
    try:
        status = main(words)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        os.write(told, str(trap.seen).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def serve_one(request: dict[str, Any]) -> dict[str, Any]:
    """Fork, wait, and tell what became of it."""
    beside = _started(request) if request.get("twice") else None
    answer = _followed_to_the_end(request, *_started(request))
    if beside is not None:
        answer["beside"] = _followed_to_the_end(request, *beside)
    return answer


def _started(request: dict[str, Any]) -> tuple[int, int, int, float]:
    """Fork; return the process, where it says and counts, and when it began."""
    fault = request.get("fault") or {}
    said, saying = os.pipe()
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.setsid()
            os.dup2(saying, 1)
            os.dup2(saying, 2)
            for handle in (said, saying, told):
                os.close(handle)
            status = run(request["words"], request["folder"], fault, telling)
        finally:
            os._exit(status)
    os.close(saying)
    os.close(telling)
    os.read(told, 1)
    return child, said, told, time.monotonic()


def _followed_to_the_end(request: dict[str, Any], child: int, said: int, told: int, begun: float) -> dict[str, Any]:
    fault = request.get("fault") or {}
    heard, status, end = _followed(child, said, begun, fault, request.get("limit", 120.0))
    counted = os.read(told, 64)
    os.close(said)
    os.close(told)
    return {
        "status": os.waitstatus_to_exitcode(status), "seconds": round(end - begun, 3), "said": heard,
        "changes": int(counted or 0), "hung": end - begun > request.get("limit", 120.0),
    }  # fmt: skip


def _followed(child: int, said: int, begun: float, fault: dict[str, Any], limit: float) -> tuple[str, int, float]:
    """Send what is to be sent after a time, and read until the end."""
    heard = bytearray()
    due = fault.get("after")
    while True:
        now = time.monotonic() - begun
        if due is not None and now >= due:
            os.kill(child, fault["signal"])
            due = None
        if now > limit:
            os.kill(child, signal.SIGKILL)
        wait = 0.02 if due is None else max(min(0.02, due - now), 0.0)
        if select.select([said], [], [], wait)[0]:
            heard += (piece := os.read(said, 65536))
            if piece:
                continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            while select.select([said], [], [], 0)[0] and (piece := os.read(said, 65536)):
                heard += piece
            return heard.decode(errors="replace"), status, time.monotonic()


def imported() -> None:
    """Import what the commands import."""
    import faiss
    import nltk  # noqa: F401
    import torch
    import torch.utils.tensorboard
    import transformers.models.bart.modeling_bart
    import transformers.models.bert.modeling_bert
    import transformers.models.gpt2.modeling_gpt2  # noqa: F401

    import g2r_lightning.commands.chat
    import g2r_lightning.commands.encode
    import g2r_lightning.commands.evaluate
    import g2r_lightning.commands.export
    import g2r_lightning.commands.fit
    import g2r_lightning.commands.index
    import g2r_lightning.commands.index_changes
    import g2r_lightning.commands.quality
    import g2r_lightning.commands.teacher_passes  # noqa: F401

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)


def serve() -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    imported()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for line in sys.stdin:
        answers.write(json.dumps(serve_one(json.loads(line))) + "\n")
        answers.flush()


class Server:
    """The parent, from outside."""

    def __init__(self) -> None:
        import subprocess

        tests = Path(__file__).parents[1]
        places = [str(tests), str(tests.parent / "src")]
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(places), "PYTHONWARNINGS": "ignore",
            "JSONARGPARSE_DEPRECATION_WARNINGS": "off", "COLUMNS": "200",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def run(
        self, words: list[str], folder: Path, limit: float = 120.0, twice: bool = False, **fault: Any
    ) -> dict[str, Any]:
        """Run a command in a process of its own, or in two at the same time, and return what became of it."""
        request = {"words": words, "folder": str(folder), "fault": fault, "limit": limit, "twice": twice}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the parent."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        assert self._process.stdout is not None
        self._process.stdout.close()


if __name__ == "__main__":
    serve()
