"""Write a set of candidates or of scores, shard by shard, so that a kill at any moment loses one shard at most.

1. ``begin`` writes ``plan.json``, the fingerprint of what was asked for; a folder begun for anything else is refused.
2. ``write(i, rows)`` puts shard i there in one step; shards may come in any order and from any process.
3. ``finish`` checks that all of them together hold exactly the planned examples in the planned order, and writes
   ``manifest.json`` last: a folder without it is unfinished, and the same command continues it.

With several ranks: rank 0 calls ``begin``, all wait, rank r writes ``pending_shards()[r::world]``, all wait, rank 0
calls ``finish``.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic

import pyarrow as pa
import pyarrow.parquet as pq

from g2r_lightning.errors import StoreError
from g2r_lightning.paths import missing_folders
from g2r_lightning.store.hashing import check_file, described_file, order_hash
from g2r_lightning.store.manifest import MANIFEST, PLAN, RESTORE, M, Shard, load_manifest
from g2r_lightning.store.planned import begun, claim
from g2r_lightning.store.schema import CandidateRow, ScoreRow, example_starts, read_shard, rows_to_table, shard_name
from g2r_lightning.store.seals import check_seal, remove_seals, sealed_path

NOTES = b"g2r_notes"  # a key of a shard's own metadata, so that rows and notes appear together


class ShardWriter(Generic[M]):
    """Write the shards of one folder.

    Args:
        folder: ``<store>/candidates`` or ``<store>/scores/<name>``; nothing is touched before :meth:`begin`.
        schema: of the rows, :data:`CANDIDATE_SCHEMA` or :data:`SCORE_SCHEMA`.
        plan: what was asked for; see :func:`candidate_plan` and :func:`score_plan`.
        flag: of the command line, by which another place is named.
    """

    def __init__(self, folder: str | Path, schema: pa.Schema, plan: M, flag: str = "--store") -> None:
        self.folder = Path(folder)
        self.schema = schema
        self.plan = plan
        self.flag = flag
        self._new = False
        self._made = missing_folders(self.folder)

    @property
    def num_shards(self) -> int:
        """How many shards the plan makes, at least 1."""
        return -(-self.plan.num_examples // self.plan.examples_per_shard)

    def shard_range(self, index: int) -> range:
        """Return the positions, in the data's order, of the examples that shard ``index`` covers.

        Raises:
            IndexError: there is no such shard.
        """
        if not 0 <= index < self.num_shards:
            raise IndexError(f"shard {index} of {self.num_shards}")
        start = index * self.plan.examples_per_shard
        return range(start, min(start + self.plan.examples_per_shard, self.plan.num_examples))

    def shard_length(self, index: int) -> int:
        """Return how many examples shard ``index`` covers."""
        return len(self.shard_range(index))

    def is_done(self, index: int) -> bool:
        """Whether shard ``index`` lies there."""
        return (self.folder / shard_name(index)).exists()

    def completed_shards(self) -> list[int]:
        """Return the shards that lie there, in order."""
        return [index for index in range(self.num_shards) if self.is_done(index)]

    def pending_shards(self) -> list[int]:
        """Return the shards that are still to be written, in order."""
        return [index for index in range(self.num_shards) if not self.is_done(index)]

    def begin(self) -> None:
        """Make the folder ready: new, to be continued, or finished already. One process calls this.

        Raises:
            StoreError: the folder was begun for something else (names both values), holds shards of unknown origin,
                or a shard in it is damaged.
        """
        self._new = claim(self.folder, self._held, self.plan.fingerprint(), self.flag)
        for index in self.completed_shards():
            self._footer(index)
            check_seal(self.folder / shard_name(index))

    def forget(self) -> None:
        """Leave no trace of a folder that this writer began and put no shard into: corrected settings may begin it.

        Those above it go too, where they were made for it.
        """
        if self._new and not any(self.folder.glob("part-*.parquet")):
            (self.folder / PLAN).unlink(missing_ok=True)
            remove_seals(self.folder)
            with suppress(OSError):  # what others keep there stays
                for place in self._made or [self.folder]:
                    place.rmdir()

    def write(
        self,
        index: int,
        rows: Sequence[CandidateRow] | Sequence[ScoreRow],
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        """Put shard ``index`` there in one step.

        Args:
            index: which shard.
            rows: all candidates of the examples in :meth:`shard_range`, example by example, candidates 0, 1, 2, ...
            notes: what is to be known of the shard when all are there, as JSON holds it; see :meth:`notes`.

        Raises:
            StoreError: a text is no valid Unicode.
            ValueError: the rows are not those of the shard (a defect of the caller).
        """
        _check_rows(rows, len(self.shard_range(index)))
        table = rows_to_table(rows, self.schema)
        if notes:
            table = table.replace_schema_metadata({NOTES: json.dumps(notes, sort_keys=True)})
        with sealed_path(self.folder / shard_name(index)) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def notes(self) -> list[dict[str, Any]]:
        """Return what was noted of each shard that lies there, in order."""
        found = (self._footer(index).metadata or {} for index in self.completed_shards())
        return [json.loads(held[NOTES]) for held in found if NOTES in held]

    def finish(self) -> M:
        """Write the manifest and return it; finished already, return it as it is. One process calls this.

        Raises:
            StoreError: shards are missing, hold other examples than planned, or are not as they were written.
        """
        if not (self.folder / MANIFEST).exists():
            missing = self.pending_shards()
            if missing:
                raise StoreError(
                    f"{self.folder}: {len(missing)} of {self.num_shards} shards are still to be written, the first is "
                    f"{shard_name(missing[0])}; run the same command again, it continues"
                )
            if order_hash(self._ids()) != self.plan.order_hash:
                raise StoreError(
                    f"{self.folder}: its shards hold other examples than planned; delete it and start again"
                )
            shards = tuple(self._described(index) for index in range(self.num_shards))
            rows = sum(shard.rows for shard in shards)
            dataclasses.replace(self.plan, shards=shards, num_rows=rows).save(self.folder)
        else:
            for shard in load_manifest(self.folder / MANIFEST, type(self.plan)).shards:
                check_file(self.folder / shard.file, dataclasses.asdict(shard), RESTORE)
        (self.folder / PLAN).unlink(missing_ok=True)
        remove_seals(self.folder)
        return load_manifest(self.folder / MANIFEST, type(self.plan))

    def _held(self) -> Mapping[str, Any] | None:
        """Return the fingerprint that the folder was begun with, or ``None`` for a new one."""
        if (self.folder / MANIFEST).exists():
            return load_manifest(self.folder / MANIFEST, type(self.plan)).fingerprint()
        return begun(self.folder, self.flag)

    def _footer(self, index: int) -> Any:
        path = self.folder / shard_name(index)
        try:
            return pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            why = " ".join(str(error).split())
            finished = (self.folder / MANIFEST).exists()
            remedy = RESTORE if finished else "delete this file and run the same command again"
            raise StoreError(f"{path}: damaged ({why}); {remedy}") from error

    def _described(self, index: int) -> Shard:
        path = self.folder / shard_name(index)
        check_seal(path)
        rows = self._footer(index).num_rows
        return Shard(file=path.name, examples=len(self.shard_range(index)), rows=rows, **described_file(path))

    def _ids(self) -> Iterator[str]:
        for index in range(self.num_shards):
            table = read_shard(self.folder / shard_name(index), ["example_id", "candidate_id"])
            yield from table["example_id"].take(pa.array(example_starts(table))).to_pylist()


def _check_rows(rows: Sequence[CandidateRow | ScoreRow], examples: int) -> None:
    """Check that rows are whole examples with candidates 0, 1, 2, ..., and as many examples as the shard has."""
    seen: set[str] = set()
    for example_id, group in itertools.groupby(rows, key=lambda row: row.example_id):
        if example_id in seen:
            raise ValueError(f"example {example_id!r} stands in two places of one shard")
        seen.add(example_id)
        members = list(group)
        numbers = [row.candidate_id for row in members]
        if numbers != list(range(len(members))):
            raise ValueError(f"example {example_id!r}: candidates {numbers}, expected 0, 1, 2, ...")
        if len({row.context for row in members if isinstance(row, CandidateRow)}) > 1:
            raise ValueError(f"example {example_id!r}: its candidates answer different contexts")
    if len(seen) != examples:
        raise ValueError(f"{len(seen)} examples for a shard of {examples}")
