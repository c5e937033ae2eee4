"""What this project has left under a folder: runs, stores, indexes, encodings, caches, and what killed runs left over.

A thing is ours if it bears our marks, never because of where it lies: a run has ``config.yaml`` and a record or
checkpoints, a store a manifest or plan of candidates, a cache nothing but files named by their content. Links are not
followed, so nothing outside of the folder is ever found.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from g2r_lightning.errors import G2RError
from g2r_lightning.runs import CHECKPOINTS, CONFIG, RECORD, RunFolder
from g2r_lightning.store.json_file import read_json
from g2r_lightning.store.manifest import MANIFEST, PLAN

Kind = Literal["run", "store", "index", "encoding", "cache", "leftover"]
DEPTH = 5
RESPONSES = ("responses.arrow", "responses.parquet")
"""Of an index, schema 2 and 1."""
_CACHED = re.compile(r"(contexts|responses|vectors)-[0-9a-f]{32}\.(arrow|npy)")
_UNFINISHED_FILE = re.compile(r"\..+\.\d+(\.[0-9a-f]{6})?\.tmp")
_UNFINISHED_FOLDER = re.compile(r"\..+-(new|old|gone)-[0-9a-f]{8}|.+\.work")
_PASSED_OVER = {".git", ".venv", "node_modules", "__pycache__", "site-packages"}


@dataclass(frozen=True, slots=True)
class Belonging:
    """Something of ours.

    Args:
        kind: what it is.
        path: of its folder or file.
        size: bytes of its files.
        changed: seconds since the epoch, of its newest file.
        state: what is known of it, one line.
    """

    kind: Kind
    path: Path
    size: int
    changed: float
    state: str


def belongings(root: Path) -> list[Belonging]:
    """Return what lies under a folder, in the order of the paths; what is part of another thing is not listed.

    Args:
        root: where to look, :data:`DEPTH` folders deep.
    """
    return sorted(_found(root, DEPTH), key=lambda one: str(one.path))


def described(path: Path) -> Belonging | None:
    """Return what a folder or file is, or ``None`` where it is none of ours."""
    kind = _kind(path)
    if kind is None:
        return None
    files = list(_files(path))
    facts = [os.lstat(file) for file in files]
    newest = max((fact.st_mtime for fact in facts), default=path.stat().st_mtime)
    return Belonging(kind, path, sum(fact.st_size for fact in facts), newest, _state(kind, path, len(files)))


def _found(folder: Path, depth: int) -> Iterator[Belonging]:
    try:
        inside = sorted(folder.iterdir())
    except OSError:  # no permission: not ours to remove either
        return
    for path in inside:
        if path.is_symlink() or path.name in _PASSED_OVER:
            continue
        own = described(path)
        if own is not None:
            yield own
        elif path.is_dir() and depth > 1:
            yield from _found(path, depth - 1)


def _kind(path: Path) -> Kind | None:
    """Return what a path is by its marks."""
    if path.is_symlink():
        return None
    if path.is_file():
        return "leftover" if _UNFINISHED_FILE.fullmatch(path.name) else None
    if not path.is_dir():
        return None
    if _UNFINISHED_FOLDER.fullmatch(path.name) and (path.name.startswith(".") or _finished_beside(path)):
        return "leftover"
    if (path / CONFIG).is_file() and ((path / RECORD).is_file() or (path / CHECKPOINTS).is_dir()):
        return "run"
    if any((path / "candidates" / name).is_file() for name in (MANIFEST, PLAN)):
        return "store"
    if (path / MANIFEST).is_file() and any((path / name).is_file() for name in RESPONSES):
        return "index"
    if any((path / name).is_file() for name in (MANIFEST, PLAN)) and any(path.glob("part-*.npy")):
        return "encoding"
    names = [inner.name for inner in path.iterdir()] if os.access(path, os.R_OK) else []
    cached = [name for name in names if _CACHED.fullmatch(name)]
    strange = [name for name in names if not _CACHED.fullmatch(name) and not _UNFINISHED_FILE.fullmatch(name)]
    return "cache" if cached and not strange else None


def _finished_beside(path: Path) -> bool:
    """Whether a folder of `index`'s work has our files in it; a name alone is not enough."""
    return any((path / name).exists() for name in ("embeddings.npy", *RESPONSES, "encoding", PLAN, MANIFEST))


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for folder, _, names in os.walk(path, followlinks=False):
        yield from (Path(folder) / name for name in names)


def _state(kind: Kind, path: Path, files: int) -> str:
    """Return what is known of a thing; a damaged one says so."""
    try:
        if kind == "run":
            return str(RunFolder(path).record().get("status", "begun"))
        if kind == "store":
            return _store_state(path)
        if kind in ("index", "encoding"):
            manifest = path / MANIFEST
            return f"{read_json(manifest).get('responses', '?')} responses" if manifest.is_file() else "unfinished"
    except G2RError as error:
        return f"damaged: {str(error).splitlines()[0][:80]}"
    return f"{files} files, made again when needed" if kind == "cache" else "of a run that was stopped"


def _store_state(path: Path) -> str:
    manifest = path / "candidates" / MANIFEST
    sets = sorted(folder.parent.name for folder in path.glob(f"scores/*/{MANIFEST}"))
    told = f"{read_json(manifest).get('num_rows', '?')} candidates" if manifest.is_file() else "unfinished"
    return f"{told}; scores: {', '.join(sets) or 'none'}"
