"""The training contexts of a run as a folder, so that a reply can be traced to the contexts it was written for.

1. Every training context is kept as the student reads it (its last utterances, persona lines where it has them), with
   all its candidates: text, source, the teacher's score.
2. The student's vectors of the first n contexts, in an order drawn by their ids, say which of them are near a live
   context. A poly-encoder has m vectors a context; their mean stands for them.
3. A reply is found among the candidates by the hash of its identity, in one pass over a column.

The folder (``<run>/why``) appears whole or not at all, and names the student whose vectors it holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor

from g2r_lightning import __version__
from g2r_lightning.data.training_set import ScoredCandidate
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import G2RError
from g2r_lightning.index import encode_rows
from g2r_lightning.inference.deployment import DeployedEncoder
from g2r_lightning.paths import inside, replaced_folder
from g2r_lightning.store.json_file import read_json, write_json
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.text import StudentText
from g2r_lightning.whole_files import write_array

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
CONTEXTS = pa.schema([("example_id", pa.string()), ("lines", pa.list_(pa.string()))])
CANDIDATES = pa.schema(
    [
        ("row", pa.int32()),
        ("key", pa.int64()),
        ("response", pa.string()),
        ("source", pa.string()),
        ("teacher_score", pa.float64()),
    ]
)
ROWS_AT_ONCE = 65_536
Known = tuple[Example, Sequence[ScoredCandidate]]


@dataclass(frozen=True)
class TrainingContexts:
    """What :func:`save_contexts` wrote.

    Args:
        contexts: N rows of :data:`CONTEXTS`.
        candidates: of :data:`CANDIDATES`; those of one context lie together, the original first.
        vectors: (n, d) float32, unit vectors of the first n contexts.
        teacher_score: what a teacher's score is, in words; ``None`` where there is none.
    """

    contexts: pa.Table
    candidates: pa.Table
    vectors: npt.NDArray[np.float32]
    teacher_score: str | None

    def lines(self, row: int) -> list[str]:
        """Return a context as the student reads it."""
        found: list[str] = self.contexts["lines"][row].as_py()
        return found

    def rows_with(self, key: int) -> npt.NDArray[np.int64]:
        """Return the rows of ``candidates`` that hold a reply, given its :func:`reply_key`."""
        return np.flatnonzero(self.candidates["key"].to_numpy() == key)

    def first_candidate(self, row: int) -> dict[str, Any]:
        """Return the original response of a context, or whatever stands first among its candidates."""
        place = int(np.searchsorted(self.candidates["row"].to_numpy(), row))
        return self.candidate(place)

    def candidate(self, place: int) -> dict[str, Any]:
        """Return a row of ``candidates`` by name of column."""
        found: dict[str, Any] = self.candidates.slice(place, 1).to_pylist()[0]
        return found

    def similarities(self, vector: Tensor) -> npt.NDArray[np.float32]:
        """Return the cosine of each of the first n contexts with a unit vector (d,)."""
        found: npt.NDArray[np.float32] = self.vectors @ vector.numpy()
        return found


def reply_key(text: StudentText, reply: str) -> int:
    """Return 64 bits of a reply's identity: equal for texts that the student reads as one."""
    digest = hashlib.blake2b(text.key(reply).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def context_vectors(
    encoder: StudentEncoder | DeployedEncoder,
    text: StudentText,
    contexts: Iterable[list[str]],
    report: Callable[[int], None] | None = None,
) -> Tensor:
    """Return (n, d) float32 unit vectors of contexts, given as the lines that the student reads.

    Args:
        encoder: the student, or an export of it.
        text: its way with texts.
        contexts: their lines.
        report: told the number of contexts done since the last call.
    """

    def encode(ids: Tensor, mask: Tensor) -> Tensor:
        """Return (n, d): a bi-encoder's vectors, or the mean of the codes that a context has."""
        encoded = encoder.encode_contexts(ids, mask)
        if encoded.ndim == 3:
            there = (encoded != 0).any(dim=-1, keepdim=True)
            encoded = encoded.sum(dim=1) / there.sum(dim=1).clamp(min=1)
        return F.normalize(encoded, dim=-1)

    rows = [np.asarray(ids, np.int32) for ids in text.encode_contexts(contexts)]
    return encode_rows(encode, rows, text.pad_id, torch.device("cpu"), report)


def save_contexts(
    folder: Path,
    known: Iterable[Known],
    encoder: StudentEncoder | DeployedEncoder,
    text: StudentText,
    most: int,
    facts: dict[str, Any],
    report: Callable[[int], None] | None = None,
) -> None:
    """Write the folder, replacing one that is there.

    Args:
        folder: where to.
        known: training examples with their candidates.
        encoder: the student, or an export of it.
        text: its way with texts.
        most: how many contexts get a vector.
        facts: what the manifest tells: ``student``, ``teacher_score``, ...
        report: told the number of contexts encoded since the last call.

    Raises:
        G2RError: there are no training examples.
    """
    drawn = sorted(known, key=lambda one: _lot(one[0].id))
    if not drawn:
        raise G2RError("no training examples, hence no contexts to compare with")
    lines = [text.context_lines(example) for example, _ in drawn]
    with replaced_folder(folder) as fresh:
        _write(
            fresh / "contexts.parquet",
            CONTEXTS,
            ((one.id, own) for (one, _), own in zip(drawn, lines, strict=True)),
        )
        _write(
            fresh / "candidates.parquet",
            CANDIDATES,
            (
                (row, reply_key(text, own.response), own.response, own.source, _told(own.teacher_score))
                for row, (_, candidates) in enumerate(drawn)
                for own in candidates
            ),
        )
        vectors = context_vectors(encoder, text, lines[:most], report)
        write_array(fresh / "vectors.npy", vectors.numpy())
        told = {
            "schema_version": SCHEMA_VERSION,
            "created_by": f"g2r_lightning {__version__}",
            "contexts": len(drawn),
            "encoded": len(vectors),
            "files": {path.name: path.stat().st_size for path in sorted(fresh.iterdir())},
        }
        write_json(fresh / MANIFEST, {**facts, **told})


def load_contexts(folder: Path) -> TrainingContexts:
    """Read a folder of :func:`save_contexts`; vectors are memory-mapped.

    Raises:
        G2RError: it is damaged.
    """
    manifest = read_json(folder / MANIFEST)
    try:
        for name, size in manifest["files"].items():
            if inside(folder, name).stat().st_size != size:
                raise G2RError(f"{folder / name}: not as it was written; delete {folder}, /why builds it again")
        return TrainingContexts(
            pq.read_table(folder / "contexts.parquet"),
            pq.read_table(folder / "candidates.parquet"),
            np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False),
            manifest.get("teacher_score"),
        )
    except (OSError, ValueError, KeyError, AttributeError, pa.ArrowException) as error:
        raise G2RError(f"{folder}: cannot be read ({error}); delete it, /why builds it again") from error


def fits(folder: Path, student: str, most: int) -> bool:
    """Whether the folder holds the vectors of a student, and of as many contexts as are asked for.

    Args:
        folder: of :func:`save_contexts`, or none.
        student: identity of the student, as ``facts`` gave it.
        most: how many contexts should have a vector.
    """
    if not (folder / MANIFEST).is_file():
        return False
    manifest = read_json(folder / MANIFEST)
    same = (manifest.get("schema_version"), manifest.get("student")) == (SCHEMA_VERSION, student)
    return same and int(manifest["encoded"]) >= min(most, int(manifest["contexts"]))


def _told(score: float) -> float | None:
    return None if np.isnan(score) else score


def _lot(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _write(path: Path, schema: pa.Schema, rows: Iterable[tuple[Any, ...]]) -> None:
    """Write rows in pieces."""
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        piece: list[tuple[Any, ...]] = []
        for row in rows:
            piece.append(row)
            if len(piece) == ROWS_AT_ONCE:
                writer.write_table(_table(schema, piece))
                piece = []
        writer.write_table(_table(schema, piece))


def _table(schema: pa.Schema, rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.table([pa.array(own, type=field.type) for own, field in zip(columns, schema, strict=True)], schema=schema)
