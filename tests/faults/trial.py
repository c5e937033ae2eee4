"""One fault from beginning to end, and the judgement over what came of it.

After an interruption the same command is run again, and must leave what it leaves when nothing happens, with every
shard that was finished untouched. Over a damaged file a command must refuse by its name, or come to the same result
without it. Whatever is said must be for people: no traceback.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faults.contents import contents, differences
from faults.jobs import Job, Workplace
from faults.kinds import DAMAGES, SIGNALS, Fault, damage, settings
from faults.server import Server

GOOD = ("continued", "not reached", "refused, then continued", "refused", "harmless")
ROOM = 64 * 2**20
SECONDS_TO_LISTEN = 0.1
"""A signal that comes earlier may find nobody that could answer it."""
PASSING = ("*.tmp", ".*-new-*", ".*-old-*", ".*-compact-*", "*.work")


@dataclass(frozen=True)
class Outcome:
    """What came of a fault.

    Args:
        number: of the fault.
        job: its command.
        kind: its kind.
        place: see :class:`Fault`.
        outcome: one of :data:`GOOD`, or what is wrong in few words.
        detail: what to look at.
        seconds: that the first run took.
    """

    number: int
    job: str
    kind: str
    place: float
    outcome: str
    detail: str
    seconds: float

    @property
    def good(self) -> bool:
        """Whether the promise was kept."""
        return self.outcome in GOOD

    def record(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)


class BrokenError(Exception):
    """A promise was broken: in few words, and what to look at."""


class Trial:
    """Faults at a workplace.

    Args:
        workplace: the state before and after each job.
        server: runs the jobs.
        folder: where trials are made; emptied after each.
    """

    def __init__(self, workplace: Workplace, server: Server, folder: Path) -> None:
        self.workplace, self.server, self.folder = workplace, server, folder.absolute()

    def run(self, fault: Fault) -> Outcome:
        """Make the fault and judge."""
        mounted = False
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            mounted = fault.kind == "disk full" and self._mounted(fault)
            shutil.copytree(self.workplace.before(fault.job), self.folder, dirs_exist_ok=mounted)
            outcome, detail, seconds = (self._damaged if fault.kind in DAMAGES else self._interrupted)(fault)
        except BrokenError as error:
            outcome, detail, seconds = error.args[0], error.args[1], 0.0
        finally:
            if mounted:
                subprocess.run(["umount", str(self.folder)], check=True)
        return Outcome(fault.number, fault.job.name, fault.kind, round(fault.place, 6), outcome, detail, seconds)

    def _interrupted(self, fault: Fault) -> tuple[str, str, float]:
        job, (after, note) = fault.job, self.workplace.after(fault.job)
        chosen = settings(fault, note, _largest(after, job))
        if fault.kind == "disk full" and not os.path.ismount(self.folder):
            chosen = {"size": int(fault.place * _largest(after, job))}
        locked = self._locked(fault) if fault.kind == "no permission" else []
        first = self.server.run(list(job.words), self.folder, **chosen)
        for path in locked:
            if path.is_dir():  # the command may have put another in its place
                path.chmod(0o755)
        _check_end(fault, first, chosen.get("after", SECONDS_TO_LISTEN))
        if os.path.ismount(self.folder):
            subprocess.run(["mount", "-o", f"remount,size={ROOM}", str(self.folder)], check=True)
        shards = self._shards(job, after)
        harmed = None
        if fault.kind.startswith("killed"):
            harmed = damage(fault, self._made(job))
            shards = {}
        again = first if job.once and not first["status"] else self.server.run(list(job.words), self.folder)
        _check_said(again)
        if again["status"] == 2 and harmed is not None and self._named(harmed, again["said"]):
            return "refused", _last(again["said"]), first["seconds"]
        if again["status"] != 0:
            raise BrokenError("does not go on", f"{first['status']}, then {again['status']}: {_last(again['said'])}")
        own = None if harmed is None else harmed.relative_to(self.folder)
        if own is not None and own.suffix == ".ckpt" and f"{own} was cut" in again["said"]:
            shutil.copy(after / own, harmed)  # told, passed over, and not needed
        self._compare(job, after, f"first {first['status']} {_last(first['said'])}; harmed {harmed}")
        self._check_shards(shards)
        self._check_passing()
        met = {"no permission": first["status"] == 2}.get(fault.kind, first["status"] != 0)
        refused = met and first["status"] == 2
        outcome = ("refused, then continued" if refused else "continued") if met else "not reached"
        return outcome, _last(first["said"]), first["seconds"]

    def _damaged(self, fault: Fault) -> tuple[str, str, float]:
        job, (after, _) = fault.job, self.workplace.after(fault.job)
        path = damage(fault, self._files(job.reads))
        assert path is not None, job
        found = self.server.run(list(job.words), self.folder)
        name = str(path.relative_to(self.folder))
        if "Traceback" in found["said"]:
            raise BrokenError("traceback", f"{name}: {found['said'][-1500:]}")
        if found["status"] == 0:
            if not job.makes:
                raise BrokenError("passes for whole", name)
            self._compare(job, after, name)
            return "harmless", name, found["seconds"]
        if found["status"] != 2 or not self._named(path, found["said"]):
            raise BrokenError("file not named", f"{name}: {found['status']} {_last(found['said'])}")
        return "refused", _last(found["said"]), found["seconds"]

    def _compare(self, job: Job, after: Path, told: str) -> None:
        try:
            found = contents(self.folder, job.makes)
        except Exception as error:
            raise BrokenError("unreadable result", f"{error!r}; {told}") from error
        lines = differences(contents(after, job.makes), found)
        lines = [line for line in lines if not (line.startswith("more") and line.endswith(".ckpt"))]
        if lines:
            raise BrokenError("wrong result", f"{'; '.join(lines)}; {told}")

    def _files(self, names: tuple[str, ...]) -> list[Path]:
        found: list[Path] = []
        for name in names:
            top = self.folder / name
            found += [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
        return [path for path in found if not path.name.startswith("events.out") and path.name != "hparams.yaml"]

    def _made(self, job: Job) -> list[Path]:
        names = (*job.makes, *(f"{name}.work" for name in job.makes), "cache")
        files = self._files(tuple(name for name in names if (self.folder / name).exists()))
        before = self.workplace.before(job)
        own = [path for path in files if not (before / path.relative_to(self.folder)).exists()]
        return [path for path in own if not path.name.endswith(".tmp") and path.parent.name != "results"]

    def _shards(self, job: Job, after: Path) -> dict[Path, int]:
        """Return the finished shards of the job with the times at which they were written; all must be whole."""
        names = tuple(str(path.relative_to(self.folder)) for path in self._made(job) if path.name.startswith("part-"))
        names = tuple(name for name in names if (after / name).is_file())
        try:
            lines = differences(contents(after, names), contents(self.folder, names))
        except Exception as error:
            raise BrokenError("half a file that looks whole", repr(error)) from error
        if lines:
            raise BrokenError("half a file that looks whole", "; ".join(lines))
        if job.name == "encode":  # its texts are read again in no time
            names = tuple(name for name in names if name.endswith(".npy"))
        return {self.folder / name: (self.folder / name).stat().st_mtime_ns for name in names}

    def _check_shards(self, shards: dict[Path, int]) -> None:
        lost = [str(path) for path, at in shards.items() if not path.is_file() or path.stat().st_mtime_ns != at]
        if lost:
            raise BrokenError("finished shards made again", "; ".join(lost))

    def _check_passing(self) -> None:
        left = [str(path.relative_to(self.folder)) for kind in PASSING for path in self.folder.rglob(kind)]
        if left:
            raise BrokenError("left over", "; ".join(left))

    def _named(self, path: Path, said: str) -> bool:
        """Whether a message names the file, or the folder that it makes up with others."""
        own = path.relative_to(self.folder)
        names = [str(own), *(str(parent) for parent in own.parents if str(parent) not in (".", "runs"))]
        return any(name in said for name in names)

    def _mounted(self, fault: Fault) -> bool:
        """Mount a disk that is nearly full, where that is allowed."""
        (after, _), before = self.workplace.after(fault.job), self.workplace.before(fault.job)
        held, whole = _pages(before), _pages(after)
        self.folder.mkdir(parents=True)
        size = held + int(fault.place * max(whole - held, 65536))
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "faults", str(self.folder)]
        return subprocess.run(words, check=False, capture_output=True).returncode == 0

    def _locked(self, fault: Fault) -> list[Path]:
        """Forbid to write into one of the folders that the job writes into, and those below it; return them."""
        tops = [self.folder / name for name in fault.job.makes]
        folders = [next(one for one in (top, *top.parents) if one.is_dir()) for top in tops]
        chosen = folders[int(fault.which * len(folders))]
        locked = [chosen, *(path for path in chosen.rglob("*") if path.is_dir())]
        for path in locked:
            path.chmod(0o555)
        return locked


def _check_end(fault: Fault, found: dict[str, Any], after: float) -> None:
    """Judge how the first run ended, that was sent a signal ``after`` so many seconds."""
    if found["hung"]:
        raise BrokenError("hangs", _last(found["said"]))
    _check_said(found)
    word = fault.kind.split()[0]
    before = fault.kind.endswith("time") and (fault.place < 0.05 or after < SECONDS_TO_LISTEN)
    expected = {0, 128 + SIGNALS.get(word, 0), -SIGNALS.get(word, 0) if before else 0}
    if word in ("terminate", "interrupt") and found["status"] not in expected:
        raise BrokenError("not stopped cleanly", f"{found['status']}: {_last(found['said'])}")
    if found["status"] == 128 + SIGNALS.get(word, 0) and "again" not in found["said"]:
        raise BrokenError("does not tell how to go on", _last(found["said"]))
    if word not in (*SIGNALS, "killed,") and found["status"] not in (0, 2):
        raise BrokenError("not refused cleanly", f"{found['status']}: {_last(found['said'])}")


def _check_said(found: dict[str, Any]) -> None:
    if "Traceback" in found["said"]:
        raise BrokenError("traceback", found["said"][-1500:])


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return " | ".join(lines[-2:])[-400:]


def _largest(after: Path, job: Job) -> int:
    files = [
        path
        for name in job.makes
        for path in ((after / name).rglob("*") if (after / name).is_dir() else [after / name])
    ]
    return max(path.stat().st_size for path in files if path.is_file())


def _pages(folder: Path) -> int:
    """Return the room that a tree takes on a disk of pages of 4 KiB."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file()) + 4096
