"""Whether somebody works with a folder: a lock that a writer holds, or a file that a process has open or mapped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from g2r_lightning.paths import is_held

PROCESSES = Path("/proc")


def users_of(path: Path) -> list[str]:
    """Return who uses a folder or file, one line each; empty where nobody does, as far as the system tells.

    Locks are those of :func:`~g2r_lightning.paths.alone_in`. Open files and memory maps are seen on Linux, those of
    this account's processes alone.
    """
    return [*_lockers(path), *_processes(path.resolve())]


def _lockers(path: Path) -> Iterator[str]:
    folders = [path, *(Path(folder) / name for folder, names, _ in os.walk(path) for name in names)]
    for folder in folders if path.is_dir() else []:
        if is_held(folder):
            yield f"{folder}: another process is writing into it"


def _processes(path: Path) -> Iterator[str]:
    for process in PROCESSES.glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        if any(used == path or path in used.parents for used in _used_by(process)):
            yield f"process {process.name} has files of it open: {_command(process)}"


def _used_by(process: Path) -> Iterator[Path]:
    """Yield what a process has open, where it stands, and what it has mapped; nothing of another account's."""
    try:
        for link in (process / "cwd", *(process / "fd").iterdir()):
            with suppress(OSError):  # closed meanwhile
                yield link.readlink()
        for line in (process / "maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            if (place := line.find("/")) >= 0:
                yield Path(line[place:])
    except OSError:  # gone meanwhile, or not ours to look at
        return


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return "ended meanwhile"
    return " ".join(words).strip()[:120]
