"""What an index is made of, brought into one file of texts and one of vectors, a piece at a time.

The pieces come from a folder of ``encode`` (shards), or from an index that is there already and shall get another kind
of search. Either says which student made the vectors, so that those of another student are never mixed up with it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from g2r_lightning.errors import G2RError, StoreError
from g2r_lightning.index.columns import TEXT, read_columns, write_columns
from g2r_lightning.index.encoded import EncodedResponses
from g2r_lightning.index.folder import EMBEDDINGS, RESPONSES, read_manifest, verify
from g2r_lightning.index.journal import verify_changes
from g2r_lightning.index.overlay import load_live
from g2r_lightning.index.wish import Dtype
from g2r_lightning.paths import atomic_path, inside
from g2r_lightning.store.hashing import check_file, described_file
from g2r_lightning.store.json_file import read_json, write_json
from g2r_lightning.store.manifest import MANIFEST, PLAN

ASSEMBLED = "assembled.json"
Piece = tuple[pa.Table, npt.NDArray[Any]]


@dataclass(frozen=True)
class VectorSet:
    """Responses and their vectors, in pieces.

    Args:
        path: the folder they come from.
        count: R responses.
        dimension: d.
        dtype: of the vectors.
        identity: a hash that another set does not have.
        told: what a manifest should tell of where they come from.
        weights: hash of the student that made them; ``None`` where only a folder of it is there.
        pieces: gives (texts and all that is told of them, (n, d) vectors) in order.
    """

    path: Path
    count: int
    dimension: int
    dtype: Dtype
    identity: str
    told: dict[str, Any]
    weights: str | None
    pieces: Callable[[], Iterator[Piece]]


def open_vectors(folder: Path) -> VectorSet:
    """Open what ``encode`` or ``index`` wrote.

    Raises:
        G2RError: it is neither, or damaged.
    """
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    return _of_index(folder) if "factory" in manifest else _of_encoded(folder)


def is_vectors(folder: Path) -> bool:
    """Whether a folder holds vectors, finished or not; a candidate store does not."""
    if not (folder / MANIFEST).is_file():
        return (folder / PLAN).is_file()
    return "dimension" in read_json(folder / MANIFEST)


def _of_encoded(folder: Path) -> VectorSet:
    encoded = EncodedResponses(folder)
    manifest = encoded.manifest

    def pieces() -> Iterator[Piece]:
        """Yield the shards; all of them are looked at before one is taken in."""
        encoded.verify()
        for shard in encoded.shards():
            yield shard.table(), shard.vectors

    told = _told(manifest)
    weights = manifest["student"]["weights_hash"]
    identity = _file_identity(folder)
    return VectorSet(folder, len(encoded), encoded.dimension, manifest["dtype"], identity, told, weights, pieces)


def _of_index(folder: Path) -> VectorSet:
    index, manifest = load_live(folder), read_manifest(folder)
    dimension = index.base.embeddings.shape[1]
    dtype: Dtype = "float16" if index.base.embeddings.dtype == np.float16 else "float32"
    identity = "-".join(map(str, index.version or ()))

    def pieces() -> Iterator[Piece]:
        """Yield what is left of it; every file is looked at before one is taken in."""
        verify(folder)
        verify_changes(folder)
        yield from index.pieces()

    return VectorSet(folder, len(index), dimension, dtype, identity, _told(manifest), None, pieces)


def _told(manifest: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key in ("input", "duplicates", "blank", "precision")}


def _file_identity(folder: Path) -> str:
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def assemble(vectors: VectorSet, folder: Path, dtype: Dtype, report: Callable[[int], None] = lambda _: None) -> None:
    """Write ``responses.arrow`` and ``embeddings.npy`` into a folder, unless they are there already.

    Where they are of other vectors, the indexes that were built of those (``candidate-*``) go too.

    Args:
        vectors: what they are made of.
        folder: where to.
        dtype: of the embeddings.
        report: called with the number of rows written since the last call.

    Raises:
        G2RError: a vector is not finite in this type (names its text).
    """
    wanted = {"identity": vectors.identity, "dtype": dtype, "responses": vectors.count, "dimension": vectors.dimension}
    note = folder / ASSEMBLED
    if note.is_file() and _as_noted(folder, note, wanted):
        return
    note.unlink(missing_ok=True)
    for stale in folder.glob("candidate-*"):
        shutil.rmtree(stale)
    with atomic_path(folder / RESPONSES) as temporary:
        write_columns(temporary, (table for table, _ in vectors.pieces()))
    with atomic_path(folder / EMBEDDINGS) as temporary:
        _write_vectors(temporary, vectors, dtype, report)
    write_json(note, {**wanted, "files": {name: described_file(folder / name) for name in (RESPONSES, EMBEDDINGS)}})


def _as_noted(folder: Path, note: Path, wanted: dict[str, Any]) -> bool:
    """Whether the files that were assembled are those that are wanted, and as they were written."""
    with suppress(StoreError):  # a damaged one is made again
        found = read_json(note)
        for name, told in found.pop("files", {}).items():
            check_file(inside(folder, name), told, "", whole=True)
        return found == wanted
    return False


def _write_vectors(path: Path, vectors: VectorSet, dtype: Dtype, report: Callable[[int], None]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (vectors.count, vectors.dimension)})
        for table, piece in vectors.pieces():
            with np.errstate(over="ignore"):  # told below, with the text
                kept = np.ascontiguousarray(piece, dtype)
            finite = np.isfinite(kept).all(axis=1)
            if not finite.all():
                raise G2RError(
                    f"the vector of the response {table[TEXT][int(np.argmin(finite))].as_py()!r} is NaN, infinite or "
                    f"too large for {dtype}; choose --index.dtype=float32, or another checkpoint"
                )
            file.write(kept.data)
            report(len(kept))


def assembled(folder: Path) -> tuple[pa.Table, npt.NDArray[Any]]:
    """Open what :func:`assemble` wrote: texts with all that is told of them, and (R, d) vectors; both memory-mapped."""
    vectors = np.load(folder / EMBEDDINGS, mmap_mode="c", allow_pickle=False)  # torch warns of read-only ones
    return read_columns(folder / RESPONSES), vectors
