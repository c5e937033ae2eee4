"""Kinds of faults, drawn from a seed: which command, what happens to it, where."""

from __future__ import annotations

import errno
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.jobs import JOBS, Job

INTERRUPTIONS = ("kill", "terminate", "interrupt", "kill at a time", "terminate at a time", "interrupt at a time",
                 "disk full", "no space at a file", "file too large", "no permission")  # fmt: skip
DAMAGES = ("cut", "emptied", "flipped", "flipped", "flipped")
BOTH = ("killed, then cut", "killed, then flipped")
SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        number: of the campaign.
        job: the command.
        kind: one of the three lists above.
        place: from 0 to 1, where: of all changes, of the time, of the bytes of a file.
        which: from 0 to 1, which file is damaged.
        bit: that is flipped in the byte.
        settings: of the server.
    """

    number: int
    job: Job
    kind: str
    place: float
    which: float
    bit: int
    settings: dict[str, Any] = field(default_factory=dict)

    def told(self) -> str:
        """Return what happens, in words."""
        return f"fault {self.number}: {self.job.name}, {self.kind} at {self.place:.3f}"


def draw(seed: int, number: int) -> Fault:
    """Return a fault of a campaign: the same for the same seed and number."""
    dice = random.Random(f"{seed}-{number}")
    job = dice.choice(list(JOBS.values()))
    kinds = [*INTERRUPTIONS * 2, *BOTH] if job.makes else []
    kinds += DAMAGES * 2 if job.reads else ()
    return Fault(number, job, dice.choice(kinds), dice.random(), dice.random(), dice.randrange(8))


def settings(fault: Fault, note: dict[str, float], bytes_made: int) -> dict[str, Any]:
    """Return what the server does to the process.

    Args:
        fault: the fault.
        note: how long the job takes and how often it changes the folder, when nothing happens.
        bytes_made: size of the largest file that it writes.
    """
    kind, event = fault.kind, 1 + int(fault.place * note["changes"])
    if kind.startswith("killed"):
        return {"signal": int(signal.SIGKILL), "event": event}
    if kind.endswith("at a time"):
        return {"signal": int(SIGNALS[kind.split()[0]]), "after": fault.place * note["seconds"]}
    if kind in SIGNALS:
        return {"signal": int(SIGNALS[kind]), "event": event}
    if kind == "no space at a file":
        return {"error": errno.ENOSPC, "event": event}
    if kind == "file too large":
        return {"size": int(fault.place * bytes_made)}
    return {"bound": True} if kind == "no permission" else {}


def damage(fault: Fault, files: list[Path]) -> Path | None:
    """Damage one of the files that are not empty, and return it."""
    filled = [path for path in files if path.stat().st_size]
    if not filled:
        return None
    path = filled[int(fault.which * len(filled))]
    content = bytearray(path.read_bytes())
    place = int(fault.place * len(content))
    if fault.kind.endswith("flipped"):
        content[place] ^= 1 << fault.bit
    else:
        content = content[: 0 if fault.kind == "emptied" else place]
    path.write_bytes(bytes(content))
    return path
