"""Responses from a file or a candidate store, one after the other: the whole set is never in memory.

A text file has one response a line; JSONL and Parquet have a field of that name (``response``, else ``text``), perhaps
a ``source``, and perhaps more that is told of each response (:mod:`metadata`); a candidate store has response and
source. Where sources are told, what humans wrote (``original``) comes first, so that a text that a teacher wrote again
keeps its human source, as in a :class:`~g2r_lightning.data.responses.ResponseSet`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from g2r_lightning.dialogue import ORIGINAL
from g2r_lightning.dialogue.readers.files import read_lines
from g2r_lightning.dialogue.text import half_character
from g2r_lightning.errors import ConfigError, DataError
from g2r_lightning.index.metadata import FieldKinds, of_kind, parquet_schema
from g2r_lightning.paths import resolve_path
from g2r_lightning.store import CandidateStore
from g2r_lightning.store.hashing import file_hash, texts_hash

log = logging.getLogger(__name__)
Kind = Literal["text", "jsonl", "parquet", "store"]
Row = tuple[Any, ...]
FIELDS = ("response", "text")
RESERVED = (*FIELDS, "source")
CONTEXT = "context"  # of a response that stands in a dialogue: kept where it is asked for alone
ROWS_AT_ONCE = 8192


class Responses(Protocol):
    """Where responses come from: rows of text, source, and the values of the schema's columns."""

    path: Path

    @property
    def schema(self) -> pa.Schema:
        """Columns beyond text and source."""

    def describe(self) -> dict[str, Any]:
        """Return what makes this input another one."""

    def rows(self) -> Iterator[Row]:
        """Yield (text, source, *values)."""


class ListedResponses:
    """Responses that are in memory already, as those of an experiment's own data.

    Args:
        texts: of them.
        sources: who wrote each.
        path: what to call them in messages.
    """

    schema = pa.schema([])

    def __init__(self, texts: Sequence[str], sources: Sequence[str], path: Path) -> None:
        self.texts, self.sources, self.path = texts, sources, path

    def describe(self) -> dict[str, Any]:
        """Return a hash of texts and sources."""
        return {"kind": "experiment", "sha256": texts_hash(zip(self.texts, self.sources, strict=True))}

    def rows(self) -> Iterator[Row]:
        """Yield (text, source)."""
        yield from zip(self.texts, self.sources, strict=True)


class ResponseStream:
    """A response set on disk.

    Args:
        path: ``.jsonl``, ``.parquet``, the folder of a candidate store, or any other file as text;
            ``package:...`` points into the installed package.
        field: of JSONL or Parquet; ``None`` takes ``response``, else ``text``.
        source: who wrote a response of which the input does not say it.
        columns: further fields of JSONL or Parquet to keep; ``None`` keeps all that can be filtered.
        section: of the command whose settings these are, for messages.

    Raises:
        DataError: there is no such file.
        StoreError: the folder is no finished candidate store.
        ConfigError: a field or columns are named for an input that has none.
    """

    def __init__(
        self,
        path: str | Path,
        field: str | None = None,
        source: str = "approved",
        columns: Sequence[str] | None = None,
        section: str = "encode",
    ) -> None:
        self.path, self.field, self.source = resolve_path(path), field, source
        self.columns, self._section = columns, section
        self.kind: Kind = "store" if self.path.is_dir() else _kind(self.path.suffix.lower())
        self._store = CandidateStore(self.path) if self.kind == "store" else None
        if self._store is None and not self.path.is_file():
            raise DataError(self.path, f"no such file; name a response set with --{section}.input")
        for name, value in (("field", field), ("columns", columns)):
            if value is not None and self.kind in ("text", "store"):
                raise ConfigError(
                    f"--{section}.{name}={value}: {self.path} is read as {self.kind}, which has no fields to choose"
                )

    def describe(self) -> dict[str, Any]:
        """Return what makes this input another one: its content and how it is read, not where it lies."""
        content = file_hash(self.path) if self._store is None else self._store.candidates.content_hash()
        kept = {field.name: str(field.type) for field in self.schema}
        told = {"kind": self.kind, "field": self.field, "source": self.source, "sha256": content}
        return {**told, "columns": kept} if kept else told

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns beyond text and source that are kept; JSONL is read through to learn them.

        Raises:
            DataError: names the line or row that holds no response.
            ConfigError: a field that was asked for is not there, or cannot be filtered.
        """
        if self.kind in ("text", "store"):
            return pa.schema([])
        setting = f"--{self._section}.columns"
        reserved = {*RESERVED, self.field or RESERVED[0]}
        if CONTEXT not in (self.columns or ()):
            reserved.add(CONTEXT)
        if self.kind == "parquet":
            with self._named(self.path, [0]), pq.ParquetFile(self.path) as file:
                schema, faults = parquet_schema(file.schema_arrow, reserved, self.columns, setting)
        else:
            kinds = FieldKinds(frozenset(reserved), self.columns)
            for number, record, _ in self._records():
                kinds.add(number, record)
            schema, faults = kinds.schema(setting)
        for name, reason in faults.items():
            if self.columns is None:
                shown = name.encode("utf-8", "backslashreplace").decode()  # half of a character cannot be printed
                log.warning("%s: the field '%s' is left out, no filter could use it: %s", self.path, shown, reason)
        return schema

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield (text, source) of every response, blank and repeated ones among them; see :meth:`rows`."""
        for text, source, *_ in self.rows():
            yield text, source

    def rows(self) -> Iterator[Row]:
        """Yield (text, source, *values of the schema's columns) of every response, blank and repeated ones among them.

        Raises:
            DataError: names the line or row that holds no response.
        """
        if self.kind == "text":
            for _, line in read_lines(self.path):
                yield line, self.source
            return
        for human in (True, False):
            yield from (each for each in self._rows() if (each[1] == ORIGINAL) == human)

    def _rows(self) -> Iterator[Row]:
        if self._store is not None:
            for index in range(len(self._store.candidates.shards)):
                yield from self._parquet(self._store.shard_file(index), "response")
        elif self.kind == "parquet":
            yield from self._parquet(self.path, self.field)
        else:
            fields = list(self.schema)
            for _, record, text in self._records():
                values = (of_kind(record.get(field.name), field.type) for field in fields)
                yield text, self.source if record.get("source") is None else record["source"], *values

    def _records(self) -> Iterator[tuple[int, dict[str, Any], str]]:
        """Yield one-based line, record and response."""
        for number, line in read_lines(self.path):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(self.path, f"no JSON ({error})", number) from error
            names = FIELDS if self.field is None else (self.field,)
            text = next((record[name] for name in names if name in record), None) if isinstance(record, dict) else None
            if not isinstance(text, str):
                wanted = " or ".join(f'"{name}"' for name in names)
                another = f"another one: --{self._section}.field=NAME"
                raise DataError(self.path, f"expected an object with the text {wanted}; {another}", number)
            source = record.get("source")
            if source is not None and not isinstance(source, str):
                raise DataError(self.path, _no_source(source), number)
            if half_character(text) or half_character(source or ""):
                raise DataError(self.path, "half of a surrogate pair, which is no valid Unicode", number)
            yield number, record, text

    def _parquet(self, path: Path, field: str | None) -> Iterator[Row]:
        row = [0]
        kept = [] if self._store is not None else list(self.schema)
        with self._named(path, row), pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            column = field or next((name for name in FIELDS if name in names), FIELDS[0])
            if column not in names:
                has = ", ".join(names)
                raise DataError(path, f'no column "{column}"; it has {has}: --{self._section}.field=NAME')
            sourced = "source" in names and column != "source"
            columns = [column, *(["source"] if sourced else []), *(each.name for each in kept)]
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
                texts = batch.column(column).to_pylist()
                told = batch.column("source").to_pylist() if sourced else [None] * len(texts)
                values = [
                    batch.column(each.name).cast(each.type, safe=not pa.types.is_temporal(each.type)).to_pylist()
                    for each in kept
                ]
                for text, source, *others in zip(texts, told, *values, strict=True):
                    row[0] += 1
                    if not isinstance(text, str):
                        raise DataError(path, f'row {row[0]}: "{column}" is {text!r}, not a text')
                    if source is not None and not isinstance(source, str):
                        raise DataError(path, f"row {row[0]}: {_no_source(source)}")
                    yield text, self.source if source is None else source, *others

    @contextmanager
    def _named(self, path: Path, row: Sequence[int]) -> Iterator[None]:
        """Turn what a reader of Parquet says into an error that names the file and the last row that was read."""
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
            raise DataError(path, f"unreadable after row {row[0]} ({error})") from error


def _no_source(value: Any) -> str:
    shown = json.dumps(value, default=str)[:40]  # ASCII: half of a character cannot be printed
    return f'"source" is {shown}, not a text: it names who wrote the response'


def _kind(suffix: str) -> Kind:
    return "jsonl" if suffix in (".jsonl", ".ndjson") else "parquet" if suffix == ".parquet" else "text"
