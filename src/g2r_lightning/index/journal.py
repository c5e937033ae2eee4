"""The changes of an index, on disk: ``overlay/change-000001/``, one folder a change, none ever written again.

A change is made in a folder of another name, flushed, and renamed: it is there whole or not at all, and two writers
cannot both have the same number. Whoever reads takes the changes that are there, in order, and so sees the set as it
was at one moment, whatever is added meanwhile. Each names the index that it changes (:func:`identity`): where the index
was built again, its old changes are refused instead of being laid over other rows.

An ``add`` holds ``responses.parquet`` and ``embeddings.npy`` (n, d), rows that follow those before them; a ``remove``
holds ``removed.parquet``: the number and text of each row that is gone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from g2r_lightning import __version__
from g2r_lightning.errors import G2RError, StoreError
from g2r_lightning.index.folder import MANIFEST, read_manifest
from g2r_lightning.paths import flush, inside
from g2r_lightning.store.hashing import check_file, described_file, file_hash
from g2r_lightning.store.json_file import read_json, sealed
from g2r_lightning.whole_files import write_array

OVERLAY = "overlay"
SCHEMA_VERSION = 1
RESPONSES, EMBEDDINGS, REMOVED = "responses.parquet", "embeddings.npy", "removed.parquet"
_REMEDY = "restore it, or delete the folder 'overlay' to go back to the index as it was built"


@dataclass(frozen=True, slots=True)
class Change:
    """One change that is on disk.

    Args:
        folder: where.
        facts: its manifest: ``kind`` (``add`` or ``remove``), ``rows``, ``id``, ``base``, ``files`` and counts.
    """

    folder: Path
    facts: dict[str, Any]

    @property
    def adds(self) -> bool:
        """Whether responses were added; else some were removed."""
        return bool(self.facts["kind"] == "add")

    def table(self) -> pa.Table:
        """Return what is known of the n responses that were added."""
        return self._read(RESPONSES)

    def vectors(self) -> npt.NDArray[np.float32]:
        """Return the (n, d) float32 vectors of the responses that were added, a memory map."""
        try:
            found: npt.NDArray[np.float32] = np.load(self.folder / EMBEDDINGS, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.folder / EMBEDDINGS}: unreadable ({error}); {_REMEDY}") from error
        return found

    def removed(self) -> npt.NDArray[np.int64]:
        """Return the numbers of the rows that were removed."""
        rows: npt.NDArray[np.int64] = self._read(REMOVED)["row"].to_numpy()
        return rows

    def _read(self, name: str) -> pa.Table:
        try:
            return pq.read_table(self.folder / name)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"{self.folder / name}: unreadable ({error}); {_REMEDY}") from error


def identity(folder: Path) -> str:
    """Return what an index is: a hash of its files' checksums, which no change of the set touches.

    Raises:
        G2RError: there is no index here.
    """
    files = read_manifest(folder)["files"]
    return hashlib.blake2b(json.dumps(files, sort_keys=True).encode(), digest_size=16).hexdigest()


def read_changes(folder: Path, base: str) -> list[Change]:
    """Return the changes of an index, the oldest first; sizes are compared, checksums by :func:`verify_changes`.

    Args:
        folder: of the index.
        base: its :func:`identity`.

    Raises:
        StoreError: one is damaged, missing between others, of another version, or was made for another index.
    """
    changes = []
    for number, path in enumerate(_folders(folder), start=1):
        if path.name != _name(number):
            raise StoreError(f"{path.parent / _name(number)}: missing, though {path.name} is there; {_REMEDY}")
        facts = read_json(path / MANIFEST, _REMEDY)
        if facts.get("schema_version") != SCHEMA_VERSION:
            raise StoreError(
                f"{path}: a change of schema version {facts.get('schema_version')}, this release reads "
                f"{SCHEMA_VERSION}; make the index again with this release"
            )
        if facts.get("base") != base:
            raise StoreError(f"{path}: was made for another index than the one that is here now; {_REMEDY}")
        for name, file in facts["files"].items():
            check_file(inside(path, name), file, _REMEDY)
        changes.append(Change(path, facts))
    return changes


def verify_changes(folder: Path) -> None:
    """Compare every file of every change with its checksum.

    Raises:
        StoreError: names the files that are not as they were written.
    """
    changed = [
        f"{change.folder.name}/{name}"
        for change in read_changes(folder, identity(folder))
        for name, file in change.facts["files"].items()
        if file_hash(change.folder / name) != file["sha256"]
    ]
    if changed:
        raise StoreError(f"{folder / OVERLAY}: changed since they were written: {', '.join(changed)}; {_REMEDY}")


def write_addition(folder: Path, table: pa.Table, vectors: npt.NDArray[np.float32], facts: dict[str, Any]) -> Change:
    """Append added responses to the changes of an index.

    Args:
        folder: of the index, which the caller holds alone.
        table: n responses, as :attr:`ResponseIndex.table` has them.
        vectors: (n, d) float32.
        facts: what else the change should tell.
    """

    def fill(fresh: Path) -> None:
        """Write both files."""
        pq.write_table(table, fresh / RESPONSES)
        write_array(fresh / EMBEDDINGS, vectors)

    return _write(folder, {"kind": "add", "rows": len(table), **facts}, fill)


def write_removal(folder: Path, rows: npt.NDArray[np.int64], texts: list[str]) -> Change:
    """Append removed rows to the changes of an index, which the caller holds alone.

    Args:
        folder: of the index.
        rows: (n,) their numbers.
        texts: n texts, for people who look.
    """
    table = pa.table({"row": pa.array(rows, pa.int64()), "text": pa.array(texts, pa.string())})
    return _write(folder, {"kind": "remove", "rows": len(rows)}, lambda fresh: pq.write_table(table, fresh / REMOVED))


def _write(folder: Path, facts: dict[str, Any], fill: Callable[[Path], None]) -> Change:
    base = identity(folder)
    place = folder / OVERLAY / _name(len(read_changes(folder, base)) + 1)
    for left_over in place.parent.glob(".change-*-new-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    fresh = place.with_name(f".{place.name}-new-{uuid.uuid4().hex[:8]}")
    try:
        fresh.mkdir(parents=True)
        fill(fresh)
        files = {path.name: described_file(path) for path in fresh.iterdir()}
        told = {
            "schema_version": SCHEMA_VERSION, "created_by": f"g2r_lightning {__version__}", "id": uuid.uuid4().hex,
            "base": base, **facts, "files": files,
        }  # fmt: skip
        (fresh / MANIFEST).write_text(sealed(told), encoding="utf-8")
        for path in (*fresh.iterdir(), fresh):
            flush(path)
        fresh.rename(place)  # refused where a change of this number is there already
        flush(place.parent)
    except OSError as error:
        raise G2RError(
            f"{place}: cannot be written ({error.strerror or error}); check permissions and free space, and that no "
            "other process changes this index"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Change(place, told)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / OVERLAY).glob("change-*") if path.is_dir())


def _name(number: int) -> str:
    return f"change-{number:06d}"
