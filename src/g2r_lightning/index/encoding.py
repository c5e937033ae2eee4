"""Encode a response set from disk to disk: memory depends on the size of a shard, not on that of the set.

1. ``begin``: the input is read once, in pieces. Texts that are one to the student (its text key) are kept once, by 16
   bytes each (:mod:`distinct`), and written in shards of ``shard_size`` texts, in the order of the input.
2. ``write``: a shard's texts are tokenised, sorted by length and encoded within a token budget; shards are independent,
   so that whoever makes one, and when, changes nothing.
3. ``finish`` writes ``manifest.json``. Every file appears by one rename; a killed run makes the shards that lack.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from g2r_lightning import __version__
from g2r_lightning.errors import DataError, G2RError, StoreError
from g2r_lightning.index.columns import SOURCE, TEXT, as_table
from g2r_lightning.index.distinct import SeenKeys
from g2r_lightning.index.encode import TOKENS_AT_ONCE, encode_rows, rounded, token_chunks, weights_hash
from g2r_lightning.index.encoded import SCHEMA_VERSION, read_column, vectors_name
from g2r_lightning.index.stream import Responses, Row
from g2r_lightning.progress import progress_bar
from g2r_lightning.store.hashing import described_file
from g2r_lightning.store.json_file import read_json, write_json
from g2r_lightning.store.manifest import MANIFEST, PLAN
from g2r_lightning.store.planned import begun, claim
from g2r_lightning.store.schema import shard_name
from g2r_lightning.store.seals import check_seal, remove_seals, sealed_path
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.text import StudentText
from g2r_lightning.whole_files import write_array

TEXTS = "texts.json"
TEXTS_AT_ONCE = 8192
TOKENS_ON_GPU = 65_536
OUTCOME = ("responses", "duplicates", "blank", "dimension", "shards", "created_by")
Dtype = Literal["float32", "float16"]


@dataclass
class Work:
    """What a process has encoded.

    Args:
        responses: how many.
        tokens: of them, special tokens included.
        padded: the same and the padding that was computed with them.
    """

    responses: int = 0
    tokens: int = 0
    padded: int = 0


@dataclass
class ResponseEncoding:
    """The encoding of a response set into a folder; see :class:`~g2r_lightning.data.shard_pass.Shards`.

    Args:
        folder: where to; nothing is touched before :meth:`begin`.
        responses: the input.
        encoder: the student, in evaluation mode, float32, whose vectors these are; nothing changes it.
        text: its way with texts.
        dtype: of the vectors on disk; they are computed as ``precision`` says.
        precision: of the computation, by Lightning's names, or what an export is; see :attr:`towers`.
        shard_size: responses a shard.
        token_budget: padded tokens of one pass; 2,048 on a CPU, 65,536 on a GPU where ``None``. Changes vectors by
            rounding only, so a run may go on with another one.
        progress: show what is read.
        section: of the command whose settings these are, for messages.
        look: called when the texts are read, with their number: the last place to refuse them before they are encoded.
        export: of the student, for another runtime, that computes in its place
            (:class:`~g2r_lightning.inference.deployment.DeployedEncoder`).
    """

    folder: Path
    responses: Responses
    encoder: StudentEncoder
    text: StudentText
    dtype: Dtype = "float32"
    precision: str = "32-true"
    shard_size: int = 16_384
    token_budget: int | None = None
    progress: bool = True
    section: str = "encode"
    look: Callable[[int], None] | None = None
    export: nn.Module | None = None
    work: Work = field(default_factory=Work)

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What was asked for: a folder that was begun for anything else is refused."""
        return {
            "schema_version": SCHEMA_VERSION,
            "student": {
                "weights_hash": weights_hash(self.encoder),
                "encoder": self.encoder.describe(),
                "text": self.text.settings(),
                "tokenizer_hash": self.text.fingerprint(),
            },
            "input": self.responses.describe(),
            "dtype": self.dtype,
            "precision": self.precision,
            "shard_size": self.shard_size,
        }

    @cached_property
    def towers(self) -> Any:
        """What computes: an export where there is one, else the student, or a copy of it in another precision.

        What is saved, and named by its hash, is always the student.
        """
        if self.export is not None:
            return self.export
        if self.precision == "32-true":
            return self.encoder
        return rounded(self.encoder) if self.precision.startswith("bf16") else deepcopy(self.encoder)

    def begin(self) -> None:
        """Make the folder ready: read the input into shards of distinct texts, where that was not done yet.

        Raises:
            StoreError: the folder was begun for something else (names both values), or a file in it is damaged.
            DataError: the input cannot be read, or holds no response.
        """
        claim(self.folder, self._held, self.plan, f"--{self.section}.output", "the folder", "this command")
        if not self._finished and not (self.folder / TEXTS).exists():
            self._read()
        if self.look is not None:
            self.look(self._counts["responses"])
        for index in range(self.num_shards):
            if (path := self.folder / vectors_name(index)).exists():
                self._check(path, index)

    @property
    def num_shards(self) -> int:
        """How many shards the distinct texts make, once they are read."""
        return -(-self._counts["responses"] // self.shard_size)

    def shard_length(self, index: int) -> int:
        """Return how many responses a shard has."""
        return min(self.shard_size, self._counts["responses"] - index * self.shard_size)

    def pending_shards(self) -> list[int]:
        """Return the shards without vectors."""
        return [index for index in range(self.num_shards) if not (self.folder / vectors_name(index)).exists()]

    def write(self, index: int, report: Callable[[int, int], None] = lambda *_: None) -> None:
        """Encode a shard and put its vectors there.

        Args:
            index: which.
            report: called with the responses and tokens done since the last call.

        Raises:
            G2RError: a vector is not finite in the type it is kept in (names the text).
        """
        texts = read_column(self.folder / shard_name(index), "text")
        rows = [np.array(row, np.int32) for row in self.text.encode_responses(texts)]
        lengths = np.array([len(row) for row in rows])
        towers = self.towers
        weight = next(towers.parameters(), None)  # an export has none
        device = torch.device("cpu") if weight is None else weight.device
        own_budget = towers.token_budget
        usual = own_budget if self.export else TOKENS_AT_ONCE if device.type == "cpu" else TOKENS_ON_GPU
        budget = self.token_budget or usual
        chunks = token_chunks(lengths, budget)
        told = iter(chunks)
        towers.token_budget = budget  # these chunks are not cut again
        try:
            vectors = encode_rows(
                towers.encode_responses, rows, self.text.pad_id, device,
                lambda done: report(done, int(lengths[next(told)].sum())), budget,
            )  # fmt: skip
        finally:
            towers.token_budget = own_budget
        kept = vectors.to(getattr(torch, self.dtype)).numpy()
        finite = np.isfinite(kept).all(axis=1)
        if not finite.all():
            raise G2RError(
                f"the vector of the response {texts[int(np.argmin(finite))]!r} is NaN, infinite or too large for "
                f"{self.dtype}; choose --{self.section}.dtype=float32, or another checkpoint"
            )
        with sealed_path(self.folder / vectors_name(index)) as temporary:
            write_array(temporary, kept)
        self.work.responses += len(rows)
        self.work.tokens += int(lengths.sum())
        self.work.padded += sum(len(chunk) * int(lengths[chunk[0]]) for chunk in chunks)

    def finish(self) -> dict[str, Any]:
        """Write the manifest and return it; one process calls this, when all shards are there.

        Raises:
            StoreError: some are not.
        """
        if not self._finished:
            if missing := self.pending_shards():
                raise StoreError(
                    f"{self.folder}: {len(missing)} of {self.num_shards} shards are still to be encoded, the first is "
                    f"{vectors_name(missing[0])}; run the same command again, it goes on"
                )
            shards = [
                {
                    "responses": self.shard_length(index),
                    "files": {name: self._described(name) for name in (shard_name(index), vectors_name(index))},
                }
                for index in range(self.num_shards)
            ]
            outcome = {**self._counts, "dimension": self.encoder.dimension, "shards": shards}
            write_json(self.folder / MANIFEST, {**self.plan, **outcome, "created_by": f"g2r_lightning {__version__}"})
        for name in (PLAN, TEXTS):
            (self.folder / name).unlink(missing_ok=True)
        remove_seals(self.folder)
        return read_json(self.folder / MANIFEST)

    @property
    def _finished(self) -> bool:
        return (self.folder / MANIFEST).exists()

    @property
    def _counts(self) -> dict[str, int]:
        found = read_json(self.folder / (MANIFEST if self._finished else TEXTS))
        return {name: int(found[name]) for name in ("responses", "duplicates", "blank")}

    def _held(self) -> Mapping[str, Any] | None:
        """Return the plan that the folder was begun with, or ``None`` for a new one."""
        if self._finished:
            return {key: value for key, value in read_json(self.folder / MANIFEST).items() if key not in OUTCOME}
        return begun(self.folder, f"--{self.section}.output")

    def _read(self) -> None:
        """Write the distinct texts in shards, and how many there were when all are there."""
        counts = dict.fromkeys(("responses", "duplicates", "blank"), 0)
        bar = progress_bar(desc="reading", unit=" responses", disable=not self.progress, leave=False)
        shard: list[Row] = []
        for fresh in self._distinct(counts, bar):
            shard += fresh
            while len(shard) >= self.shard_size:
                self._write_texts(counts["responses"], shard[: self.shard_size])
                counts["responses"] += self.shard_size
                shard = shard[self.shard_size :]
        if shard:
            self._write_texts(counts["responses"], shard)
            counts["responses"] += len(shard)
        bar.close()
        if not counts["responses"]:
            raise DataError(self.responses.path, "the response set is empty: nothing to encode")
        write_json(self.folder / TEXTS, counts)

    def _distinct(self, counts: dict[str, int], bar: Any) -> Iterator[list[Row]]:
        """Yield the texts that were not there before, piece by piece; count those that were."""
        seen = SeenKeys()
        for piece in _pieces(self.responses.rows()):
            keys = [self.text.key(text) for text, *_ in piece]
            filled = [row for row, key in enumerate(keys) if key]
            new = seen.add([keys[row] for row in filled]).tolist()
            fresh = [piece[row] for row, first in zip(filled, new, strict=True) if first]
            counts["blank"] += len(piece) - len(filled)
            counts["duplicates"] += len(filled) - len(fresh)
            bar.update(len(piece))
            yield fresh

    def _write_texts(self, first: int, rows: list[Row]) -> None:
        table = as_table(rows, pa.schema([(TEXT, pa.string()), (SOURCE, pa.string()), *self.responses.schema]))
        with sealed_path(self.folder / shard_name(first // self.shard_size)) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def _described(self, name: str) -> dict[str, Any]:
        check_seal(self.folder / name)
        return described_file(self.folder / name)

    def _check(self, path: Path, index: int) -> None:
        check_seal(self.folder / shard_name(index))
        check_seal(path)
        try:
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
        except (ValueError, OSError) as error:
            raise StoreError(f"{path}: damaged ({error}); delete this file and run the same command again") from error
        if shape != (expected := (self.shard_length(index), self.encoder.dimension)):
            raise StoreError(
                f"{path}: vectors of shape {shape}, expected {expected}; delete this file and run the command again"
            )


class EncodingProgress:
    """Tell a progress bar what is encoded.

    Args:
        bar: of tqdm; counts responses.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._begun, self._responses, self._tokens = time.perf_counter(), 0, 0

    def __call__(self, responses: int, tokens: int) -> None:
        """Add what was done."""
        self._responses += responses
        self._tokens += tokens
        seconds = max(time.perf_counter() - self._begun, 1e-9)
        rates = f"{self._responses / seconds:,.0f} responses/s, {self._tokens / seconds:,.0f} tokens/s"
        self._bar.set_postfix_str(rates, refresh=False)
        self._bar.update(responses)


def _pieces(responses: Iterable[Row]) -> Iterator[list[Row]]:
    source = iter(responses)
    while piece := list(islice(source, TEXTS_AT_ONCE)):
        yield piece
