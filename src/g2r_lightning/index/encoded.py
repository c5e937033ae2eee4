"""An encoded response set as a folder: its texts and their vectors in shards, and a manifest.

``part-00000.parquet`` has the columns ``text``, ``source`` and whatever else the input told of its responses,
``part-00000.npy`` the vector of each row (n, d), float32 or float16; row i of the set is row ``i % shard_size`` of
shard ``i // shard_size``. ``manifest.json`` says which student made the vectors of which input. Vectors are opened as
memory maps: a set may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from g2r_lightning.errors import StoreError
from g2r_lightning.paths import inside
from g2r_lightning.store.hashing import check_file, file_hash
from g2r_lightning.store.json_file import read_json
from g2r_lightning.store.manifest import MANIFEST, PLAN
from g2r_lightning.store.schema import shard_name

SCHEMA_VERSION = 1
_AGAIN = "make it again with `python -m g2r_lightning encode`"


def vectors_name(index: int) -> str:
    """Return the file name of a shard's vectors.

    >>> vectors_name(3)
    'part-00003.npy'
    """
    return shard_name(index).removesuffix(".parquet") + ".npy"


@dataclass(frozen=True, slots=True)
class EncodedShard:
    """Some responses and their vectors.

    Args:
        first: row of its first response in the whole set.
        vectors: (n, d) float32 or float16, a read-only memory map.
        texts_path: the Parquet file with ``text``, ``source`` and the input's own columns.
    """

    first: int
    vectors: npt.NDArray[Any]
    texts_path: Path

    def texts(self) -> list[str]:
        """Return the n responses."""
        return self._column("text")

    def sources(self) -> list[str]:
        """Return who wrote each."""
        return self._column("source")

    def table(self) -> pa.Table:
        """Return the n responses with all that is told of them: ``text``, ``source``, and the input's own columns."""
        return _read(self.texts_path, None)

    def _column(self, name: str) -> list[str]:
        return read_column(self.texts_path, name)


class EncodedResponses:
    """A finished folder of ``encode``.

    Args:
        folder: where it is.

    Raises:
        StoreError: it is missing, unfinished, of another schema version, or a file is missing or has another size.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / MANIFEST).is_file():
            state = "unfinished; the same command goes on" if (self.folder / PLAN).is_file() else f"missing; {_AGAIN}"
            raise StoreError(f"{self.folder}: encoded response set {state}")
        self.manifest = read_json(self.folder / MANIFEST)
        version = self.manifest.get("schema_version")
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{self.folder}: encoded responses of schema version {version}, this release reads {SCHEMA_VERSION}; "
                f"{_AGAIN}"
            )
        for name, facts in self._files():
            check_file(inside(self.folder, name), facts, f"restore it, or {_AGAIN}")

    def __len__(self) -> int:
        return int(self.manifest["responses"])

    @property
    def dimension(self) -> int:
        """Size d of every vector."""
        return int(self.manifest["dimension"])

    def shards(self) -> Iterator[EncodedShard]:
        """Yield the shards in order; the pages of a memory map are read when they are used."""
        first = 0
        for index, shard in enumerate(self.manifest["shards"]):
            vectors = np.load(self.folder / vectors_name(index), mmap_mode="r", allow_pickle=False)
            if vectors.shape != (shard["responses"], self.dimension):
                raise StoreError(f"{self.folder / vectors_name(index)}: shape {vectors.shape}; restore it, or {_AGAIN}")
            yield EncodedShard(first, vectors, self.folder / shard_name(index))
            first += len(vectors)

    def verify(self) -> None:
        """Compare every file with its checksum; reads the whole folder.

        Raises:
            StoreError: names the files that are not as they were written.
        """
        changed = [name for name, facts in self._files() if file_hash(self.folder / name) != facts["sha256"]]
        if changed:
            raise StoreError(
                f"{self.folder}: changed since they were written: {', '.join(changed)}; restore them, or {_AGAIN}"
            )

    def _files(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for shard in self.manifest["shards"]:
            yield from shard["files"].items()


def read_column(path: Path, name: str) -> list[str]:
    """Return a column of a shard's texts.

    Raises:
        StoreError: the file cannot be read.
    """
    values: list[str] = _read(path, [name])[name].to_pylist()
    return values


def _read(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path}: unreadable ({error}); restore it, or delete its folder and {_AGAIN}") from error
