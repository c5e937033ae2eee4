"""A response index as a folder that can be moved.

``student/`` (safetensors, tokenizer, settings), ``responses.arrow`` (text, source, and what else is told of the
responses), ``embeddings.npy``, ``index.faiss`` where the search is not exact (and ``index.ivfdata`` where its cells
were merged on disk), and ``manifest.json`` with sizes and checksums. The folder appears whole or not at all.

Loading checks sizes and headers and maps everything into memory: a million responses take no longer than a thousand.
:func:`verify` reads every byte. Folders of schema version 1 (``responses.parquet``, an ``index.faiss`` of every kind)
are read too.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError

from g2r_lightning import __version__
from g2r_lightning.errors import G2RError
from g2r_lightning.index.columns import SOURCE, TEXT, TextColumn, metadata_of, read_columns, write_columns
from g2r_lightning.index.faiss_search import read_mapped
from g2r_lightning.index.response_index import EXACT, ResponseIndex
from g2r_lightning.paths import inside, replaced_folder
from g2r_lightning.store.hashing import check_file, described_file
from g2r_lightning.store.json_file import unsealed, write_json
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.persistence import load_student, save_student
from g2r_lightning.student.text import StudentText
from g2r_lightning.whole_files import write_array, write_faiss

MANIFEST = "manifest.json"
RESPONSES, EMBEDDINGS, FAISS = "responses.arrow", "embeddings.npy", "index.faiss"
SCHEMA_VERSION = 2
READABLE = (1, 2)
_AGAIN = "build the index again"


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
        write_columns(fresh / RESPONSES, [index.table])
        write_array(fresh / EMBEDDINGS, index.embeddings)
        if index.factory != EXACT and index.faiss_index is not None:
            write_faiss(fresh / FAISS, index.faiss_index)
        write_manifest(fresh, {**described_index(index), **facts})


def described_index(index: ResponseIndex) -> dict[str, Any]:
    """Return what a manifest says of every index."""
    return {
        "factory": index.factory,
        "search": index.search_parameters,
        "responses": len(index),
        "dimension": int(index.embeddings.shape[1]),
        "dtype": str(index.embeddings.dtype),
        "columns": index.table.column_names,
        "exact": index.factory == EXACT,
    }


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``manifest.json`` with the checksum of every file of the folder, and return it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "created_by": f"g2r_lightning {__version__}",
        **facts,
        "files": {str(path.relative_to(folder)): described_file(path) for path in files},
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def load_index(folder: Path) -> tuple[ResponseIndex, StudentEncoder, StudentText]:
    """Read a folder of :func:`save_index`.

    Raises:
        G2RError: it is no such folder, of another version, or a file is missing or damaged.
    """
    return load_responses(folder), *load_indexed_student(folder)


def load_indexed_student(folder: Path) -> tuple[StudentEncoder, StudentText]:
    """Read the student of a folder of :func:`save_index`, without the responses.

    Raises:
        G2RError: see :func:`load_index`.
    """
    with _named(folder):
        for name, facts in read_manifest(folder)["files"].items():
            if Path(name).parts[0] == "student":
                check_file(folder / name, facts, _AGAIN, whole=True)
        return load_student(folder / "student")


def load_responses(folder: Path) -> ResponseIndex:
    """Read the responses, vectors and FAISS index of a folder, without the student.

    Raises:
        G2RError: see :func:`load_index`.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    with _named(folder):
        return _loaded(folder, manifest)


def check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Check that the files of a folder are there and as they were written; of large ones the size alone.

    Raises:
        G2RError: names the first that is not.
    """
    for name, facts in manifest["files"].items():
        check_file(folder / name, facts, _AGAIN)


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Turn what readers say of damaged files into an error that names the file."""
    try:
        yield
    except (pa.ArrowException, SafetensorError, OSError, ValueError, RuntimeError) as error:
        verify(folder)  # names the file, where one is not as it was written
        raise G2RError(f"{folder}: cannot be read ({error}); {_AGAIN}") from error


def _loaded(folder: Path, manifest: dict[str, Any]) -> ResponseIndex:
    first = manifest["schema_version"] == 1
    table = pq.read_table(folder / "responses.parquet") if first else read_columns(folder / RESPONSES)
    embeddings = np.load(folder / EMBEDDINGS, mmap_mode="c", allow_pickle=False)  # torch warns of read-only ones
    if embeddings.ndim != 2 or embeddings.dtype not in (np.float32, np.float16):
        raise ValueError(f"{EMBEDDINGS} holds {embeddings.dtype} of shape {embeddings.shape}")
    factory, faiss_index = manifest["factory"], None
    if factory != EXACT and importlib.util.find_spec("faiss") is not None:
        faiss_index = read_mapped(folder / FAISS)
        if faiss_index.ntotal != len(embeddings) or faiss_index.d != embeddings.shape[1]:
            raise ValueError(f"{FAISS} is over {faiss_index.ntotal} vectors of {faiss_index.d} dimensions")
    elif factory != EXACT:
        factory = EXACT  # without faiss all vectors are read: the same answers and better
    search = manifest.get("search", {}) if faiss_index is not None else {}
    texts, sources = TextColumn(table[TEXT]), TextColumn(table[SOURCE])
    return ResponseIndex(
        texts, sources, embeddings, factory, faiss_index, search, metadata_of(table), checked=True
    )  # fmt: skip


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what a folder says of itself.

    Raises:
        G2RError: there is no index here, or one of another schema version, or its manifest is damaged.
    """
    try:
        manifest = unsealed((folder / MANIFEST).read_text(encoding="utf-8"))
        version = manifest["schema_version"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise G2RError(
            f"{folder}: no response index here; `fit` builds one at <run>/index, `index` one of any response set"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise G2RError(f"{folder / MANIFEST}: damaged ({error}); {_AGAIN}") from error
    if version not in READABLE:
        raise G2RError(
            f"{folder}: index of schema version {version}, this release reads {' and '.join(map(str, READABLE))}; "
            "build it again"
        )
    lacking = {"files", "factory"} - manifest.keys()
    if lacking:
        raise G2RError(f"{folder / MANIFEST}: damaged (no {', '.join(sorted(lacking))}); {_AGAIN}")
    for name in manifest["files"]:
        inside(folder, name)
    return manifest


def verify(folder: Path) -> None:
    """Compare every file with its checksum.

    Raises:
        G2RError: names the files that are not as they were written.
    """
    files = read_manifest(folder)["files"]
    changed = [
        name for name, facts in files.items() if not (folder / name).is_file() or described_file(folder / name) != facts
    ]
    if changed:
        raise G2RError(f"{folder}: changed or lost since they were written: {', '.join(changed)}; build it again")
