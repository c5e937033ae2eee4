"""The texts of an index on disk: an Arrow file that is memory-mapped, so that a text is read when it is asked for.

A million replies as Python strings take 150 MB and a second to make. Mapped, opening them costs what their headers
cost. Beside ``text`` and ``source`` the file holds whatever else the input told of its responses (tags, a licence, a
language): the metadata, of the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import index as whole
from pathlib import Path
from typing import Any, overload

import pyarrow as pa

from g2r_lightning.errors import G2RError

TEXT, SOURCE = "text", "source"
ROWS = 16_384  # of a record batch
MAGIC = b"ARROW1"


class TextColumn(Sequence[str]):
    """Texts in an Arrow column: a list that holds no Python strings.

    >>> TextColumn(pa.chunked_array([["hi", "ho"], ["hé"]]))[-1]
    'hé'

    Args:
        column: of strings without nulls.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        """Return the text of a row, or the texts of some rows as a list."""
        if isinstance(place, slice):
            texts: list[str] = self.column[place].to_pylist()
            return texts
        row = whole(place)
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        text: str = self.column[row % len(self)].as_py()
        return text

    def __iter__(self) -> Iterator[str]:
        for chunk in self.column.iterchunks():
            for start in range(0, len(chunk), ROWS):
                yield from chunk[start : start + ROWS].to_pylist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str) or not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(own == its for own, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"TextColumn([{shown}{', ...' if len(self) > 3 else ''}], {len(self)} texts)"


def text_column(texts: Sequence[str]) -> pa.ChunkedArray:
    """Return texts as an Arrow column; pieces of it stay below the 2 GiB that one array of strings may hold."""
    if isinstance(texts, TextColumn):
        return texts.column
    pieces = [pa.array(texts[start : start + ROWS], pa.string()) for start in range(0, len(texts), ROWS)]
    return pa.chunked_array(pieces, pa.string())


def joined_table(texts: Sequence[str], sources: Sequence[str], metadata: pa.Table | None) -> pa.Table:
    """Return one table: ``text``, ``source``, then the columns of the metadata.

    Raises:
        G2RError: the metadata is of another number of rows, or has a column of a name that is taken.
    """
    table = pa.table({TEXT: text_column(texts), SOURCE: text_column(sources)})
    if metadata is None:
        return table
    if len(metadata) != len(table):
        raise G2RError(f"{len(texts)} texts, {len(metadata)} rows of metadata: must be as many")
    for field in metadata.schema:
        if field.name in table.column_names:
            raise G2RError(f"metadata has a column '{field.name}' too many; rename it")
        table = table.append_column(field, metadata[field.name])
    return table


def write_columns(path: Path, tables: Iterable[pa.Table]) -> int:
    """Write tables of one schema behind one another, a piece at a time.

    Args:
        path: a new Arrow file, not compressed: what is compressed cannot be mapped.
        tables: at least one.

    Returns:
        How many rows were written.
    """
    rest = iter(tables)
    first = next(rest)
    count = 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, first.schema) as writer:
        for table in chain([first], rest):
            writer.write_table(table, max_chunksize=ROWS)
            count += len(table)
    return count


def read_columns(path: Path) -> pa.Table:
    """Open a file of :func:`write_columns` as a memory map.

    Raises:
        pa.ArrowException: it is damaged.
        G2RError: it lacks ``text`` or ``source``.
    """
    with pa.memory_map(str(path)) as file:
        if file.read(len(MAGIC)) != MAGIC:  # the reader looks at the end of the file alone
            raise pa.ArrowInvalid("no Arrow file")
        with pa.ipc.open_file(file) as reader:
            table = reader.read_all()
    table.validate()  # of each piece, that it lies within the file; every byte is looked at by `verify` alone
    for name in (TEXT, SOURCE):
        if name not in table.column_names or not pa.types.is_string(table.schema.field(name).type):
            raise G2RError(f"{path}: no column of texts named '{name}'; build the index again")
    return table


def metadata_of(table: pa.Table) -> pa.Table:
    """Return the columns beyond ``text`` and ``source``."""
    return table.select([name for name in table.column_names if name not in (TEXT, SOURCE)])


def as_table(rows: Any, schema: pa.Schema) -> pa.Table:
    """Return rows, tuples in the order of the schema, as a table."""
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
