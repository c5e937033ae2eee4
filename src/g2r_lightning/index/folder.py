"""A response index as a folder that can be moved.

``student/`` (safetensors, tokenizer, settings), ``responses.parquet`` (text, source), ``embeddings.npy``,
``index.faiss`` and ``manifest.json`` with sizes and checksums. The folder appears whole or not at all. Loading checks
sizes; :func:`verify` reads everything.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError

from g2r_lightning import __version__
from g2r_lightning.errors import G2RError
from g2r_lightning.index.response_index import ResponseIndex
from g2r_lightning.paths import replaced_folder
from g2r_lightning.store.hashing import file_hash
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.persistence import load_student, save_student
from g2r_lightning.student.text import StudentText

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


def save_index(
    folder: Path, index: ResponseIndex, encoder: StudentEncoder, text: StudentText, facts: dict[str, Any]
) -> None:
    """Write the folder, replacing one that is there.

    Args:
        folder: where to.
        index: responses, vectors, FAISS index.
        encoder: the student that made the vectors.
        text: its way with texts.
        facts: what else the manifest should tell (checkpoint, data).
    """
    with replaced_folder(folder) as fresh:
        save_student(encoder, text, fresh / "student")
        pq.write_table(pa.table({"text": index.texts, "source": index.sources}), fresh / "responses.parquet")
        np.save(fresh / "embeddings.npy", index.embeddings, allow_pickle=False)
        if index.faiss_index is not None:
            import faiss

            faiss.write_index(index.faiss_index, str(fresh / "index.faiss"))
        files = sorted(path for path in fresh.rglob("*") if path.is_file())
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "created_by": f"g2r_lightning {__version__}",
            "factory": index.factory,
            "responses": len(index),
            "dimension": int(index.embeddings.shape[1]),
            "exact": index.factory == "Flat",
            "files": {str(path.relative_to(fresh)): _described(path) for path in files},
            **facts,
        }
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def load_index(folder: Path) -> tuple[ResponseIndex, StudentEncoder, StudentText]:
    """Read a folder of :func:`save_index`.

    Raises:
        G2RError: it is no such folder, of another version, or a file is missing or damaged.
    """
    index = load_responses(folder)
    with _named(folder):
        return index, *load_student(folder / "student")


def load_responses(folder: Path) -> ResponseIndex:
    """Read the responses, vectors and FAISS index of a folder, without the student.

    Raises:
        G2RError: see :func:`load_index`.
    """
    manifest = read_manifest(folder)
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise G2RError(f"{path}: missing; build the index again")
        if (size := path.stat().st_size) != facts["bytes"]:
            raise G2RError(f"{path}: {size} bytes, but {facts['bytes']} were written; build the index again")
    with _named(folder):
        return _loaded(folder, manifest["factory"])


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Turn what readers say of damaged files into an error that names the file."""
    try:
        yield
    except (pa.ArrowException, SafetensorError, OSError, ValueError, RuntimeError) as error:
        verify(folder)  # names the file, where one is not as it was written
        raise G2RError(f"{folder}: cannot be read ({error}); build the index again") from error


def _loaded(folder: Path, factory: str) -> ResponseIndex:
    table = pq.read_table(folder / "responses.parquet")
    embeddings = np.load(folder / "embeddings.npy", mmap_mode="c", allow_pickle=False)  # torch warns of read-only ones
    faiss_index = None
    if (folder / "index.faiss").is_file() and importlib.util.find_spec("faiss") is not None:
        import faiss

        faiss_index = faiss.read_index(str(folder / "index.faiss"))
    texts, sources = table["text"].to_pylist(), table["source"].to_pylist()
    return ResponseIndex(texts, sources, embeddings, factory, faiss_index)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what a folder says of itself.

    Raises:
        G2RError: there is no index here, or one of another schema version, or its manifest is damaged.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version = manifest["schema_version"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise G2RError(f"{folder}: no response index here; `fit` builds one at <run>/index") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise G2RError(f"{folder / MANIFEST}: damaged ({error}); build the index again") from error
    if version != SCHEMA_VERSION:
        raise G2RError(
            f"{folder}: index of schema version {version}, this release reads {SCHEMA_VERSION}; build it again"
        )
    lacking = {"files", "factory"} - manifest.keys()
    if lacking:
        raise G2RError(f"{folder / MANIFEST}: damaged (no {', '.join(sorted(lacking))}); build the index again")
    return manifest


def verify(folder: Path) -> None:
    """Compare every file with its checksum.

    Raises:
        G2RError: names the files that are not as they were written.
    """
    files = read_manifest(folder)["files"]
    changed = [
        name for name, facts in files.items() if not (folder / name).is_file() or _described(folder / name) != facts
    ]
    if changed:
        raise G2RError(f"{folder}: changed or lost since they were written: {', '.join(changed)}; build it again")


def _described(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_hash(path)}
