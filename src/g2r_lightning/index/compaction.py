"""Fold the changes of an index into it: what is left is built anew, and takes the old index's place in one step.

The kind of index, its search parameters and its student stay; what was measured does not, being of another set (build
with ``index --index.input=THE_INDEX`` to choose and tune anew). Readers that hold the old index keep it, its files
being mapped; the next :func:`~g2r_lightning.index.overlay.load_live` gives them the new one. Rows get new numbers. What
else lies in the folder, exports of the encoder, goes along.
"""

from __future__ import annotations

import glob
import shutil
import tempfile
from pathlib import Path
from typing import Any

from g2r_lightning.errors import G2RError
from g2r_lightning.index.assembly import assemble, assembled, open_vectors
from g2r_lightning.index.building import INDEX, built_index
from g2r_lightning.index.columns import SOURCE, TEXT, TextColumn, metadata_of
from g2r_lightning.index.edit import alone_with
from g2r_lightning.index.faiss_search import LISTS, read_mapped
from g2r_lightning.index.folder import (
    EMBEDDINGS,
    FAISS,
    MANIFEST,
    RESPONSES,
    described_index,
    read_manifest,
    verify,
    write_manifest,
)
from g2r_lightning.index.journal import OVERLAY, verify_changes
from g2r_lightning.index.memory import GIB
from g2r_lightning.index.overlay import LiveIndex
from g2r_lightning.index.response_index import EXACT, ResponseIndex
from g2r_lightning.machine import free_memory
from g2r_lightning.paths import replaced_folder
from g2r_lightning.store.hashing import texts_hash

BUILT_OF = "built_of"
"""In a manifest: hash of the texts and sources that a set began with, by which its experiment knows it again."""

KEPT = ("run", "checkpoint", "checkpoint_sha256", "abstention", "memory_limit", BUILT_OF)
"""What a manifest tells that is true of the next build too."""

STUDENT, BUILT = "student", "built"


def compact(folder: Path, output: Path | None = None, limit: int | None = None) -> int:
    """Write an index anew with its changes in it; memory holds a block of vectors, and FAISS's index if it has one.

    Args:
        folder: of the index.
        output: where to; in its own place unless told.
        limit: bytes of memory that building may take; half of what is free unless told.

    Returns:
        How many responses it has.

    Raises:
        G2RError: there is no index, or it is damaged, or another process is changing it; the output is there already;
            too few responses are left for the factory string, or memory is too small for it.
    """
    if output is not None and output.exists():
        raise G2RError(f"{output}: is there already; name another place, or leave it out to replace {folder}")
    if output is not None and output.resolve().is_relative_to(folder.resolve()):
        raise G2RError(f"{output}: lies in the index itself; name a place outside of it, or leave it out to replace it")
    place = output or folder
    with alone_with(folder) as live:
        verify(folder)  # what is built anew gets new checksums: nothing that changed may be blessed with them
        verify_changes(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        for left_over in place.parent.glob(f".{glob.escape(place.name)}-compact-*"):  # of a killed process
            shutil.rmtree(left_over, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-compact-") as work:
            left = _built(folder, Path(work), limit or (free_memory() or 8 * GIB) // 2)
            _put(folder, place, Path(work), left, live)
        return len(live)


def _built(folder: Path, work: Path, limit: int) -> ResponseIndex:
    """Write texts, vectors and FAISS index of what is left into a folder of work, and open them."""
    manifest = read_manifest(folder)
    factory, faiss_index = manifest["factory"], None
    if factory != EXACT and "search" not in manifest:
        raise G2RError(f"{folder}: written by an earlier release, whose search parameters are unknown; build it again")
    vectors = open_vectors(folder)
    assemble(vectors, work, vectors.dtype)
    table, embeddings = assembled(work)
    if factory != EXACT:
        built_index(work / BUILT, embeddings, factory, limit)
        faiss_index = read_mapped(work / BUILT / INDEX)
    texts, sources = TextColumn(table[TEXT]), TextColumn(table[SOURCE])
    search = manifest.get("search")
    return ResponseIndex(texts, sources, embeddings, factory, faiss_index, search, metadata_of(table), checked=True)


def _put(folder: Path, place: Path, work: Path, left: ResponseIndex, live: LiveIndex) -> None:
    """Move what was built into its place, with the student and what else lies in the folder."""
    manifest = read_manifest(folder)
    with replaced_folder(place) as fresh:
        shutil.copytree(folder / STUDENT, fresh / STUDENT)
        for made, name in {RESPONSES: RESPONSES, EMBEDDINGS: EMBEDDINGS, f"{BUILT}/{INDEX}": FAISS,
                           f"{BUILT}/{LISTS}": LISTS}.items():  # fmt: skip
            if (work / made).is_file():
                (work / made).rename(fresh / name)
        kept = {key: manifest[key] for key in KEPT if key in manifest}
        write_manifest(fresh, {**_origin(manifest, live), **kept, **described_index(left)})
        own = {Path(name).parts[0] for name in manifest["files"]} | {OVERLAY, MANIFEST}
        for path in folder.iterdir():
            if path.name not in own:
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, fresh / path.name)


def _origin(manifest: dict[str, Any], live: LiveIndex) -> dict[str, Any]:
    """Return which set this one comes from: the one that was built first, and the state that is folded in."""
    state = list(live.version) if live.version is not None else None
    unchanged = live.version is not None and live.version.changes == 0
    return {
        BUILT_OF: set_hash(live.base),
        "compacted_from": manifest.get("compacted_from", state) if unchanged else state,
    }


def set_hash(index: ResponseIndex) -> str:
    """Return a hash of an index's texts and sources, in the order of its rows."""
    return texts_hash(zip(index.texts, index.sources, strict=True))
