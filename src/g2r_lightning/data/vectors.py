"""Texts are read by a frozen encoder once, into memory-mapped blocks named by their content.

A frozen encoder makes of a text the same vector for ever, so each distinct text is encoded once, in whichever epoch or
run it is first needed. A block's name is a hash of its texts and of the encoder: a killed run goes on behind the last
whole block, another encoder finds none of them, and a second run with the same data finds all.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from g2r_lightning.data.tokens import content_key
from g2r_lightning.paths import alone_in, atomic_path
from g2r_lightning.whole_files import whole_file

Vectors = npt.NDArray[np.float32]
TEXTS_PER_BLOCK = 8192
CHECKSUM_BYTES = 4


class TextReader(Protocol):
    """What reads texts (see :class:`g2r_lightning.studies.unreferenced.UtteranceEncoder`)."""

    def fingerprint(self) -> str:
        """Return a hash of everything that decides a vector."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return (len(texts), d) float32."""


class VectorTable:
    """Vectors of distinct texts, in memory-mapped blocks.

    Args:
        paths: the blocks, in order; each but the last has :data:`TEXTS_PER_BLOCK` rows.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._blocks: list[Vectors] = [np.load(path, mmap_mode="r", allow_pickle=False) for path in self.paths]

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    @property
    def dimension(self) -> int:
        """Size d of every vector."""
        return int(self._blocks[0].shape[1])

    def take(self, rows: npt.NDArray[np.int64]) -> Vectors:
        """Return the vectors of some rows: (len(rows), d) float32."""
        found = np.empty((len(rows), self.dimension), np.float32)
        blocks, places = np.divmod(rows, TEXTS_PER_BLOCK)
        for block in np.unique(blocks):
            there = blocks == block
            found[there] = self._blocks[block][places[there]]
        return found

    def __reduce__(self) -> tuple[type[VectorTable], tuple[list[Path]]]:
        return VectorTable, (self.paths,)


def vector_table(
    cache_dir: Path, reader: TextReader, texts: Sequence[str], report: Callable[[int], None] | None = None
) -> VectorTable:
    """Return the vectors of distinct texts, encoding the blocks that are not there.

    Args:
        cache_dir: folder of the blocks.
        reader: encodes what is missing.
        texts: at least one, in an order that stays from run to run.
        report: called with the number of texts done since the last call, those that were there included.
    """
    fingerprint = reader.fingerprint()
    paths = []
    for start in range(0, len(texts), TEXTS_PER_BLOCK):
        block = texts[start : start + TEXTS_PER_BLOCK]
        path = cache_dir / f"vectors-{content_key(fingerprint, block)}.npy"
        if not _whole(path, len(block)):
            with alone_in(cache_dir, wait=True):  # of several processes one encodes, the others wait for it
                if not _whole(path, len(block)):
                    vectors = reader.encode(block)
                    with atomic_path(path) as temporary, whole_file(temporary) as file:
                        np.save(file, vectors, allow_pickle=False)
                        file.write(_checksum(vectors))  # behind what NumPy reads
        paths.append(path)
        if report is not None:
            report(len(block))
    return VectorTable(paths)


def _whole(path: Path, rows: int) -> bool:
    """Whether a block lies there as it was written; every byte is read once."""
    if not path.is_file():
        return False
    try:
        vectors: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        with path.open("rb") as file:
            file.seek(-CHECKSUM_BYTES, os.SEEK_END)
            return len(vectors) == rows and vectors.dtype == np.float32 and file.read() == _checksum(vectors)
    except (ValueError, OSError, TypeError, SyntaxError):  # cut short, or a damaged header
        return False


def _checksum(vectors: Vectors) -> bytes:
    """Return a checksum of vectors and of their shape."""
    shape = " ".join(map(str, vectors.shape)).encode()
    return zlib.crc32(np.ascontiguousarray(vectors).data, zlib.crc32(shape)).to_bytes(CHECKSUM_BYTES, "little")
