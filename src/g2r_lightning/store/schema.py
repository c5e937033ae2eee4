"""The two tables of a candidate store, and where they lie.

A store is a folder. ``candidates/`` has one row for every reply to every context: candidate 0 of an example is its
original response, the others follow in the order in which they were made. ``scores/<name>/`` has, for exactly the
same rows in the same order, what one teacher thinks of them. Both are written in shards of whole examples, shard i
covering examples [i * n, (i + 1) * n) of the data, so that whoever writes a shard, and when, changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from g2r_lightning.errors import StoreError
from g2r_lightning.paths import resolve_path

SCHEMA_VERSION = 1
EXAMPLES_PER_SHARD = 512  # what a killed run loses at most; about a megabyte with ten candidates an example

CANDIDATE_SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("candidate_id", pa.int32(), nullable=False),
        pa.field("context", pa.list_(pa.string()), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("given_ll", pa.float64()),
        pa.field("given_mi", pa.float64()),
    ]
)

SCORE_SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("candidate_id", pa.int32(), nullable=False),
        pa.field("log_likelihood", pa.float64(), nullable=False),
        pa.field("num_tokens", pa.int32(), nullable=False),
        pa.field("prior_log_likelihood", pa.float64()),
        pa.field("prior_num_tokens", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One reply to one context.

    Args:
        example_id: ``dataset:dialogue:turn``.
        candidate_id: 0 for the original response, then 1, 2, ... within the example.
        context: the utterances before it, oldest first, unrendered.
        response: its text, as written.
        source: ``original``, ``generated``, or the name of whatever else wrote it.
        given_ll: log-likelihood that came with the data, length-normalised by whoever made it (natural log).
        given_mi: mutual information that came with the data (natural log).
    """

    example_id: str
    candidate_id: int
    context: tuple[str, ...]
    response: str
    source: str
    given_ll: float | None = None
    given_mi: float | None = None


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """What a teacher thinks of one candidate: sums and counts, from which every score is computed when it is read.

    Args:
        example_id: the candidate's example.
        candidate_id: the candidate within it.
        log_likelihood: log P(response | context), natural log, summed over its tokens and the end token; at most 0.
        num_tokens: how many tokens that sum has, the end token included; at least 1.
        prior_log_likelihood: log P(response) by the score set's prior estimator, summed likewise; ``None`` without one.
        prior_num_tokens: how many tokens the prior's sum has.
    """

    example_id: str
    candidate_id: int
    log_likelihood: float
    num_tokens: int
    prior_log_likelihood: float | None = None
    prior_num_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class StoredExample:
    """One context with all its candidates, the original response first.

    Args:
        example_id: ``dataset:dialogue:turn``.
        context: the utterances, oldest first, unrendered; the same object as in every candidate.
        candidates: by ``candidate_id``; at least one.
    """

    example_id: str
    context: tuple[str, ...]
    candidates: tuple[CandidateRow, ...]


def candidates_folder(store: str | Path) -> Path:
    """Return where a store keeps its candidates; ``package:...`` points into the installed package."""
    return resolve_path(store) / "candidates"


def scores_folder(store: str | Path, name: str) -> Path:
    """Return where a store keeps the score set ``name``.

    Raises:
        StoreError: the name cannot be the name of a folder.
    """
    if name in ("", ".", "..") or any(mark in name for mark in "/\\\0"):
        raise StoreError(f"score set {name!r}: a score set is named like one folder, without slashes")
    return resolve_path(store) / "scores" / name


def shard_name(index: int) -> str:
    """Return the file name of a shard.

    >>> shard_name(3)
    'part-00003.parquet'
    """
    return f"part-{index:05d}.parquet"


def rows_to_table(rows: Sequence[CandidateRow] | Sequence[ScoreRow], schema: pa.Schema) -> pa.Table:
    """Return rows as an Arrow table of ``schema``.

    Raises:
        StoreError: a text is no valid Unicode (a lone surrogate), which Parquet cannot hold; names the example.
    """
    columns = {name: [getattr(row, name) for row in rows] for name in schema.names}
    try:
        return pa.Table.from_pydict(columns, schema=schema)
    except UnicodeEncodeError as error:
        guilty = next(row for row in rows if _broken(row))
        raise StoreError(
            f"example {guilty.example_id!r}, candidate {guilty.candidate_id}: the text holds half of a surrogate pair, "
            "which is not valid Unicode; repair or drop it in the data"
        ) from error


def example_starts(table: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the row at which each example begins, given a table with the column ``candidate_id``."""
    return np.flatnonzero(table["candidate_id"].to_numpy() == 0)


def table_to_examples(table: pa.Table) -> Iterator[StoredExample]:
    """Yield the examples of a candidate table, in order; each context is built once and shared by its candidates."""
    starts = example_starts(table)
    contexts = table["context"].take(pa.array(starts)).to_pylist()
    rows = zip(
        *(table[name].to_pylist() for name in CANDIDATE_SCHEMA.names if name != "context"),
        strict=True,
    )
    for context, count in zip(contexts, np.diff(starts, append=table.num_rows).tolist(), strict=True):
        shared = tuple(context)
        candidates = tuple(
            CandidateRow(example_id, candidate_id, shared, *rest)
            for example_id, candidate_id, *rest in itertools.islice(rows, count)
        )
        yield StoredExample(candidates[0].example_id, shared, candidates)


def _broken(row: CandidateRow | ScoreRow) -> bool:
    texts = (
        (row.example_id, *row.context, row.response, row.source) if isinstance(row, CandidateRow) else (row.example_id,)
    )
    return any("\ud800" <= character <= "\udfff" for text in texts for character in text)


def read_shard(file: Path, columns: list[str]) -> pa.Table:
    """Return some columns of a shard.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        return pq.read_table(file, columns=columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StoreError(f"{file}: unreadable ({error}); restore it, or delete its folder and make it again") from error
