"""Texts are tokenised once, into a memory-mapped Arrow file named by its content.

A table holds one row of token ids a text. Its file name is a hash of the texts and of everything that decides their
tokens, so a changed setting finds no file and makes a new one, and an unchanged one costs nothing; workers and
processes share the pages.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from g2r_lightning.dialogue import Example
from g2r_lightning.paths import alone_in, atomic_path

TokenIds = npt.NDArray[np.int32]
ROWS_PER_BATCH = 65_536
FORMAT = 1
"""Of the files under a key, vectors too: part of their names, so that those of another format are not found."""
CHECKSUM = b"crc32"


class TextEncoder(Protocol):
    """What a model tells the data about its texts (see :class:`g2r_lightning.student.text.StudentText`)."""

    pad_id: int

    def fingerprint(self) -> str:
        """Return a hash of everything that decides the tokens."""

    def key(self, response: str) -> str:
        """Return the identity of a response: equal keys are one response."""

    def context_lines(self, example: Example) -> list[str]:
        """Return the lines of a context as the model reads them."""

    def encode_contexts(self, contexts: Iterable[list[str]]) -> Iterator[list[int]]:
        """Yield the token ids of each context."""

    def encode_responses(self, responses: Iterable[str]) -> Iterator[list[int]]:
        """Yield the token ids of each response."""


class TokenTable:
    """Rows of token ids in a memory-mapped Arrow file.

    Args:
        path: a file that :func:`token_table` wrote.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        source = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [source.get_batch(i).column(0) for i in range(source.num_record_batches)]
        self._offsets = [np.asarray(batch.offsets) for batch in self._batches]
        self._values = [np.asarray(batch.values) for batch in self._batches]
        self._rows = sum(len(batch) for batch in self._batches)

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> TokenIds:
        """Return the token ids of one row, int32, without a copy."""
        batch, index = divmod(int(row), ROWS_PER_BATCH)
        offsets = self._offsets[batch]
        ids: TokenIds = self._values[batch][offsets[index] : offsets[index + 1]]
        return ids

    def __reduce__(self) -> tuple[type[TokenTable], tuple[Path]]:
        return TokenTable, (self.path,)


def content_key(fingerprint: str, texts: Iterable[str]) -> str:
    """Return the hash under which the tokens of these texts are kept."""
    digest = hashlib.blake2b(f"{FORMAT}\n{fingerprint}".encode(), digest_size=16)
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def token_table(cache_dir: Path, kind: str, key: str, rows: Iterable[list[int]]) -> TokenTable:
    """Open the table of that key, writing it first where it does not exist or was cut short.

    Of several processes that need it, the first one writes it and the others wait for it.

    Args:
        cache_dir: folder of the tables.
        kind: leading word of the file name, for the person who looks into the folder.
        key: hash of the content, see :func:`content_key`.
        rows: token ids, consumed only where the table has to be written.
    """
    path = cache_dir / f"{kind}-{key}.arrow"
    if not _whole(path):
        with alone_in(cache_dir, wait=True):
            if not _whole(path):
                _write(path, rows)
    return TokenTable(path)


def _write(path: Path, rows: Iterable[list[int]]) -> None:
    schema = pa.schema([("tokens", pa.list_(pa.int32()))])
    with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        for number, block in enumerate(_blocks(rows)):
            batch = pa.record_batch([pa.array(block, type=pa.list_(pa.int32()))], schema=schema)
            writer.write_batch(batch, custom_metadata={CHECKSUM: _checksum(number, batch)})


def _whole(path: Path) -> bool:
    """Whether a table lies there as it was written; every byte is read once, at about the speed of the memory."""
    if not path.is_file():
        return False
    try:
        source = pa.ipc.open_file(pa.memory_map(str(path)))
        for number in range(source.num_record_batches):
            found = source.get_batch_with_custom_metadata(number)
            found.batch.validate(full=True)
            if (found.custom_metadata or {}).get(CHECKSUM) != _checksum(number, found.batch):
                return False
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True


def _checksum(number: int, batch: pa.RecordBatch) -> bytes:
    """Return a checksum of a batch's tokens and of where its rows end."""
    column = batch.column(0)
    values, offsets = (np.ascontiguousarray(each).data for each in (column.values, column.offsets))
    return f"{number} {zlib.crc32(values, zlib.crc32(offsets))}".encode()


def context_table(text: TextEncoder, examples: list[Example], cache_dir: Path) -> TokenTable:
    """Tokenise the contexts of these examples, one row each."""
    lines = [text.context_lines(example) for example in examples]
    key = content_key(text.fingerprint(), ("\x1e".join(context) for context in lines))
    return token_table(cache_dir, "contexts", key, text.encode_contexts(lines))


def response_table(text: TextEncoder, responses: list[str], cache_dir: Path) -> TokenTable:
    """Tokenise responses, one row each."""
    key = content_key(text.fingerprint(), responses)
    return token_table(cache_dir, "responses", key, text.encode_responses(responses))


def pad(rows: list[TokenIds], pad_id: int) -> tuple[Tensor, Tensor]:
    """Stack rows of token ids into ids and attention mask, both (len(rows), longest row) int64."""
    width = max((len(row) for row in rows), default=0)
    ids = np.full((len(rows), max(width, 1)), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _blocks(rows: Iterable[list[int]]) -> Iterator[list[list[int]]]:
    block: list[list[int]] = []
    for row in rows:
        block.append(row)
        if len(block) == ROWS_PER_BATCH:
            yield block
            block = []
    if block:
        yield block
