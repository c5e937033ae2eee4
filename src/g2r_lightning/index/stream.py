"""Responses from a file or a candidate store, one after the other: the whole set is never in memory.

A text file has one response a line; JSONL and Parquet have a field of that name (``response``, else ``text``) and
perhaps a ``source``; a candidate store has both. Where sources are told, what humans wrote (``original``) comes first,
so that a text that a teacher wrote again keeps its human source, as in a
:class:`~g2r_lightning.data.responses.ResponseSet`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from g2r_lightning.dialogue import ORIGINAL
from g2r_lightning.dialogue.readers.files import read_lines
from g2r_lightning.dialogue.text import half_character
from g2r_lightning.errors import ConfigError, DataError
from g2r_lightning.paths import resolve_path
from g2r_lightning.store import CandidateStore, candidates_folder
from g2r_lightning.store.hashing import file_hash

Kind = Literal["text", "jsonl", "parquet", "store"]
FIELDS = ("response", "text")
ROWS_AT_ONCE = 8192


class ResponseStream:
    """A response set on disk.

    Args:
        path: ``.jsonl``, ``.parquet``, the folder of a candidate store, or any other file as text;
            ``package:...`` points into the installed package.
        field: of JSONL or Parquet; ``None`` takes ``response``, else ``text``.
        source: who wrote a response of which the input does not say it.

    Raises:
        DataError: there is no such file.
        StoreError: the folder is no finished candidate store.
        ConfigError: a field is named for an input that has none.
    """

    def __init__(self, path: str | Path, field: str | None = None, source: str = "approved") -> None:
        self.path, self.field, self.source = resolve_path(path), field, source
        self.kind: Kind = "store" if self.path.is_dir() else _kind(self.path.suffix.lower())
        self._store = CandidateStore(self.path) if self.kind == "store" else None
        if self._store is None and not self.path.is_file():
            raise DataError(self.path, "no such file; name a response set with --encode.input")
        if field is not None and self.kind in ("text", "store"):
            raise ConfigError(
                f"--encode.field={field}: {self.path} is read as {self.kind}, which has no fields to choose"
            )

    def describe(self) -> dict[str, Any]:
        """Return what makes this input another one: its content and how it is read, not where it lies."""
        content = file_hash(self.path) if self._store is None else self._store.candidates.content_hash()
        return {"kind": self.kind, "field": self.field, "source": self.source, "sha256": content}

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield (text, source) of every response, blank and repeated ones among them.

        Raises:
            DataError: names the line or row that holds no response.
        """
        if self.kind == "text":
            for _, line in read_lines(self.path):
                yield line, self.source
            return
        for human in (True, False):
            yield from (each for each in self._rows() if (each[1] == ORIGINAL) == human)

    def _rows(self) -> Iterator[tuple[str, str]]:
        if self._store is not None:
            folder = candidates_folder(self.path)
            for shard in self._store.candidates.shards:
                yield from self._parquet(folder / shard.file, "response")
        elif self.kind == "parquet":
            yield from self._parquet(self.path, self.field)
        else:
            yield from self._jsonl()

    def _jsonl(self) -> Iterator[tuple[str, str]]:
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
                raise DataError(
                    self.path, f"expected an object with the text {wanted}; another one: --encode.field=NAME", number
                )
            if half_character(text):
                raise DataError(self.path, "half of a surrogate pair, which is no valid Unicode", number)
            source = record.get("source", self.source)
            yield text, source if isinstance(source, str) else self.source

    def _parquet(self, path: Path, field: str | None) -> Iterator[tuple[str, str]]:
        row = 0
        try:
            with pq.ParquetFile(path) as file:
                names = file.schema_arrow.names
                column = field or next((name for name in FIELDS if name in names), FIELDS[0])
                if column not in names:
                    raise DataError(path, f'no column "{column}"; it has {", ".join(names)}: --encode.field=NAME')
                columns = [column, *(["source"] if "source" in names and column != "source" else [])]
                for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
                    texts = batch.column(column).to_pylist()
                    told = batch.column("source").to_pylist() if len(columns) > 1 else [None] * len(texts)
                    for text, source in zip(texts, told, strict=True):
                        row += 1
                        if not isinstance(text, str):
                            raise DataError(path, f'row {row}: "{column}" is {text!r}, not a text')
                        yield text, source if isinstance(source, str) else self.source
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(path, f"unreadable after row {row} ({error})") from error


def _kind(suffix: str) -> Kind:
    return "jsonl" if suffix in (".jsonl", ".ndjson") else "parquet" if suffix == ".parquet" else "text"
