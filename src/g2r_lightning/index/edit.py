"""Add responses to an index, and remove some, without building it again.

1. :func:`add_responses` leaves out what the set has already (as its student reads texts), encodes the rest with the
   index's own student, and appends them to the overlay.
2. :func:`remove_responses` appends the rows that go.

One process changes an index at a time; a second one is told so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from g2r_lightning.dialogue.text import half_character
from g2r_lightning.errors import G2RError
from g2r_lightning.index.encode import encode_rows
from g2r_lightning.index.folder import load_indexed_student, read_manifest
from g2r_lightning.index.journal import write_addition, write_removal
from g2r_lightning.index.overlay import LiveIndex, load_live
from g2r_lightning.paths import alone_in


@dataclass(frozen=True, slots=True)
class Addition:
    """What became of responses that were to be added.

    Args:
        added: how many are new.
        duplicates: how many the set had, or came twice.
        blank: how many are no text but white space.
        first_row: row of the first one that was added.
    """

    added: int
    duplicates: int
    blank: int
    first_row: int


def add_responses(folder: Path, responses: pa.Table, source: str = "approved", strict: bool = False) -> Addition:
    """Add responses to an index, encoded by its own student.

    Args:
        folder: of the index.
        responses: n rows with a column ``text``; ``source`` and any other columns are kept.
        source: who wrote a response of which the rows do not say it.
        strict: refuse texts that the set has already, instead of counting them.

    Raises:
        G2RError: there is no index, it is damaged, or another process is changing it; a row holds no text; a column
            does not fit that of the index; with ``strict``, a text is there already.
    """
    with alone_with(folder) as live:
        encoder, text = load_indexed_student(folder)
        keys = [text.key(each) for each in _texts(responses)]
        fresh, repeated = _sorted_out(keys, _known(live, text.key, set(keys)))
        if strict and repeated:
            told = responses["text"][repeated[0]].as_py()
            raise G2RError(f"row {repeated[0] + 1}: {told!r} is in the set already; remove it there, or here")
        duplicates, blank = len(repeated), len(keys) - len(fresh) - len(repeated)
        first_row = len(live.texts)
        if fresh:
            table = fitted(responses.take(pa.array(fresh)), live.table.schema, source)
            tokens = [np.asarray(row, np.int32) for row in text.encode_responses(table["text"].to_pylist())]
            encoded = encode_rows(encoder.encode_responses, tokens, text.pad_id, torch.device("cpu")).numpy()
            vectors = encoded.astype(live.base.embeddings.dtype).astype(np.float32)  # as they are when folded in
            _check(vectors, table, live)
            write_addition(folder, table, vectors, {"duplicates": duplicates, "blank": blank})
    return Addition(len(fresh), duplicates, blank, first_row)


def remove_responses(folder: Path, rows: Callable[[LiveIndex], npt.NDArray[np.int64]]) -> list[str]:
    """Remove responses from an index.

    Args:
        folder: of the index.
        rows: returns which rows go, given the set as it is while nobody else can change it; see :func:`rows_of` and
            :class:`~g2r_lightning.index.conditions.Condition`.

    Returns:
        The texts that went; none where no row was chosen.

    Raises:
        G2RError: there is no index, or it is damaged, or another process is changing it; a row is not in the set;
            nothing would be left.
    """
    with alone_with(folder) as live:
        chosen = np.unique(np.asarray(rows(live), np.int64))
        outside = chosen[(chosen < 0) | (chosen >= len(live.texts))]
        gone = [int(row) for row in chosen if row not in outside and not live.alive[row]]
        if len(outside) or gone:
            named = int(outside[0]) if len(outside) else gone[0]
            told = f"there are rows 0 to {len(live.texts) - 1}" if len(outside) else "it was removed before"
            raise G2RError(f"{folder}: no row {named} to remove, {told}")
        if len(chosen) == len(live):
            raise G2RError(f"{folder}: this would remove all of its {len(live)} responses; nothing was changed")
        texts = [live.texts[int(row)] for row in chosen]
        if len(chosen):
            write_removal(folder, chosen, texts)
    return texts


def rows_of(live: LiveIndex, texts: Iterable[str], key: Callable[[str], str]) -> npt.NDArray[np.int64]:
    """Return the rows of texts.

    Args:
        live: the set.
        texts: which.
        key: identity of a text, that of the student: :meth:`~g2r_lightning.student.text.StudentText.key`.

    Raises:
        G2RError: names the first text that is not in the set.
    """
    wanted = {key(text): text for text in texts}
    rows = [row for row in np.flatnonzero(live.alive).tolist() if wanted.pop(key(live.texts[row]), None) is not None]
    if wanted:
        raise G2RError(f"no response {next(iter(wanted.values()))!r} in the set: nothing was removed")
    return np.array(rows, np.int64)


def fitted(responses: pa.Table, schema: pa.Schema, source: str = "approved") -> pa.Table:
    """Return rows with columns of the types that a set has.

    Args:
        responses: n rows with a column ``text``.
        schema: of the set.
        source: fills the column ``source`` where it says nothing.

    Raises:
        G2RError: a column holds something else than the set's.
    """
    given = responses["source"].to_pylist() if "source" in responses.column_names else [None] * len(responses)
    columns = {name: responses[name] for name in responses.column_names}
    columns["source"] = pa.chunked_array([pa.array([one or source for one in given], pa.string())])
    for name, column in columns.items():
        wanted = schema.field(name).type if name in schema.names else column.type
        try:
            columns[name] = column if column.type == wanted else column.cast(wanted)
        except (pa.ArrowException, NotImplementedError) as error:
            raise G2RError(f"column '{name}' holds {wanted} in the index, and {column.type} here: {error}") from error
    return pa.table(columns)


@contextmanager
def alone_with(folder: Path) -> Iterator[LiveIndex]:
    """Keep other processes from changing an index, and give the set as it is.

    Raises:
        G2RError: there is no index, or it is damaged, or another process is changing it.
    """
    read_manifest(folder)  # the lock would make a folder that is not there
    with alone_in(folder):
        yield load_live(folder)


def _texts(responses: pa.Table) -> list[str]:
    if "text" not in responses.column_names:
        raise G2RError(f"no column 'text' among {', '.join(responses.column_names)}: it holds the responses")
    texts = responses["text"].to_pylist()
    for row, text in enumerate(texts, start=1):
        if not isinstance(text, str) or half_character(text):
            raise G2RError(f"row {row}: {text!r} is no response" + " (half of a character)" * isinstance(text, str))
    return list(texts)


def _known(live: LiveIndex, key: Callable[[str], str], wanted: set[str]) -> set[str]:
    """Return which of the keys the set has."""
    return {own for row in np.flatnonzero(live.alive).tolist() if (own := key(live.texts[row])) in wanted}


def _sorted_out(keys: list[str], known: set[str]) -> tuple[list[int], list[int]]:
    """Return the places of keys that are new, and of those that are known or come again; blank ones in neither."""
    fresh: list[int] = []
    repeated: list[int] = []
    for row, key in enumerate(keys):
        if key:
            (repeated if key in known else fresh).append(row)
            known.add(key)
    return fresh, repeated


def _check(vectors: npt.NDArray[np.float32], table: pa.Table, live: LiveIndex) -> None:
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise G2RError(f"the vector of the response {table['text'][int(np.argmin(finite))].as_py()!r} is not finite")
    if vectors.shape[1] != live.added.shape[1]:
        raise G2RError(f"the student's vectors have {vectors.shape[1]} dimensions, the index's {live.added.shape[1]}")
