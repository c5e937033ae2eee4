"""Open a candidate store, check that it is whole and meant, and read it.

Opening looks at manifests and file sizes only, and takes milliseconds; :meth:`CandidateStore.verify` reads every byte.
Everything comes in one order, that of the rows: example by example as in the data, candidates 0, 1, 2, ... in each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from g2r_lightning.errors import StoreError
from g2r_lightning.paths import inside, resolve_path
from g2r_lightning.store.hashing import DataDescription, check_file, file_hash
from g2r_lightning.store.manifest import (
    MANIFEST,
    PLAN,
    RESTORE,
    CandidateManifest,
    M,
    Manifest,
    ScoreManifest,
    Shard,
    differences,
    load_manifest,
)
from g2r_lightning.store.schema import (
    CANDIDATE_SCHEMA,
    SCORE_SCHEMA,
    StoredExample,
    candidates_folder,
    example_starts,
    read_shard,
    scores_folder,
    table_to_examples,
)
from g2r_lightning.store.score_set import ScoreSet, floats
from g2r_lightning.store.scores import Floats, TeacherScore, check_finite, teacher_score

_KEYS = ["example_id", "candidate_id"]
_GENERATE = "`python -m g2r_lightning generate -c <experiment>`"
_SCORE = "`python -m g2r_lightning score -c <experiment>`"


class CandidateStore:
    """A finished candidate store.

    Args:
        path: its folder; ``package:...`` points into the installed package.

    Raises:
        StoreError: it is missing, unfinished, of another schema version, or one of its files is missing or cut short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = resolve_path(path)
        self._looked_at: set[Path] = set()
        self.candidates = _opened(candidates_folder(self.path), CandidateManifest, "candidate store", _GENERATE)

    def score_names(self) -> list[str]:
        """Return the names of the finished score sets, sorted."""
        return sorted(folder.parent.name for folder in self.path.glob(f"scores/*/{MANIFEST}"))

    def score_manifest(self, name: str | None = None) -> ScoreManifest:
        """Return what a score set was made from.

        Args:
            name: which; ``None`` takes the only one.

        Raises:
            StoreError: there is none, or more than one to choose from; or it is unfinished, damaged, or scores other
                candidates than this store's.
        """
        folder = scores_folder(self.path, self._score_name(name))
        manifest = _opened(folder, ScoreManifest, "score set", _SCORE)
        if manifest.candidates_hash != self.candidates.content_hash():
            raise StoreError(
                f"{folder}: made for other candidates: these scores are for {manifest.candidates_hash}, the store has "
                f"{self.candidates.content_hash()}; delete {folder} and run {_SCORE}"
            )
        return manifest

    def likelihoods_like(self, plan: ScoreManifest) -> tuple[str, ScoreSet] | None:
        """Return name and numbers of a finished score set by the same teacher with the same template, if there is one.

        Another prior of the same teacher is another score set, whose likelihoods given the context are these.
        """
        wanted = {"teacher": plan.teacher, "template": plan.template}
        for name in self.score_names():
            with suppress(StoreError):  # a damaged one is a reason to compute them again
                held = self.score_manifest(name)
                if not differences({"teacher": held.teacher, "template": held.template}, wanted):
                    return name, self.scores(name)
        return None

    def check_data(self, data: DataDescription) -> None:
        """Refuse to serve an experiment with other data; the order of the examples does not matter.

        Args:
            data: :func:`~g2r_lightning.store.hashing.describe_data` of the experiment's examples.

        Raises:
            StoreError: the examples are not those of the store; names both values.
        """
        held = {"data_hash": self.candidates.data_hash, "num_examples": self.candidates.num_examples}
        wanted = {"data_hash": data.data_hash, "num_examples": data.num_examples}
        lines = differences(held, wanted)
        if lines:
            listed = "\n  ".join(lines)
            raise StoreError(
                f"{self.path}: this store was made for other data:\n  {listed}\n"
                f"Restore the data section it was made with, or make another store: {_GENERATE} with a new --store"
            )

    def examples(self) -> Iterator[StoredExample]:
        """Yield the examples in order; one shard at a time is in memory."""
        for index in range(len(self.candidates.shards)):
            yield from self.shard(index)

    def shard(self, index: int) -> Iterator[StoredExample]:
        """Yield the examples of one shard; a score set's shard ``index`` covers the same ones."""
        return table_to_examples(read_shard(self.shard_file(index), CANDIDATE_SCHEMA.names))

    def shard_file(self, index: int) -> Path:
        """Return the Parquet file of a shard's candidates, after a look at its checksum.

        Raises:
            StoreError: it is not as it was written.
        """
        return self._checked(candidates_folder(self.path), self.candidates.shards[index])

    def _checked(self, folder: Path, shard: Shard) -> Path:
        """Return a shard's file; its checksum is compared once, when it is first read."""
        path = folder / shard.file
        if path not in self._looked_at:
            check_file(path, {"bytes": shard.bytes, "sha256": shard.sha256}, RESTORE, whole=True)
            self._looked_at.add(path)
        return path

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """Return all candidates as one Arrow table, R rows.

        Args:
            columns: which of :data:`CANDIDATE_SCHEMA`; ``None`` is all, and repeats the context in every row.
        """
        return self._concatenated(candidates_folder(self.path), self.candidates, columns or CANDIDATE_SCHEMA.names)

    def _concatenated(self, folder: Path, manifest: Manifest, columns: list[str]) -> pa.Table:
        return pa.concat_tables([read_shard(self._checked(folder, shard), columns) for shard in manifest.shards])

    @cached_property
    def rows(self) -> Mapping[str, range]:
        """Example id -> its rows in :meth:`table` and :meth:`teacher_scores`, in order."""
        keys = self.table(_KEYS)
        starts = example_starts(keys)
        ends = np.append(starts[1:], keys.num_rows)
        ids = keys["example_id"].take(pa.array(starts)).to_pylist()
        return {key: range(start, end) for key, start, end in zip(ids, starts.tolist(), ends.tolist(), strict=True)}

    def scores(self, name: str | None = None) -> ScoreSet:
        """Return one teacher's numbers, in the order of the rows.

        Args:
            name: which score set; ``None`` takes the only one.

        Raises:
            StoreError: see :meth:`score_manifest`; or its rows are not those of the candidates.
        """
        manifest = self.score_manifest(name)
        folder = scores_folder(self.path, self._score_name(name))
        table = self._concatenated(folder, manifest, SCORE_SCHEMA.names)
        if not table.select(_KEYS).equals(self.table(_KEYS)):
            raise StoreError(f"{folder}: its rows are not those of the candidates; delete it and run {_SCORE}")
        return ScoreSet.from_table(table, self.rows)

    def teacher_scores(self, score: TeacherScore = "ll", name: str | None = None, normalise: bool = True) -> Floats:
        """Return t(c, r) of every candidate, the target of the score transfer (Kim et al. 2021).

        Args:
            score: ``ll`` or ``mi`` from a score set; ``given_ll`` or ``given_mi`` as they came with the data.
            name: which score set; ``None`` takes the only one. Given scores are in no set.
            normalise: divide sums by token counts; given scores are used as they came.

        Returns:
            (R,) float64, in the order of :meth:`table`, all finite.

        Raises:
            StoreError: the scores are not there, or one is missing, NaN or infinite (names example and candidate).
        """
        if score in ("given_ll", "given_mi"):
            return self._given(score)
        found = self.scores(name)
        return teacher_score(
            found.log_likelihood,
            found.num_tokens,
            found.prior_log_likelihood,
            found.prior_num_tokens,
            kind="ll" if score == "ll" else "mi",
            normalise=normalise,
            label=self._label,
        )

    def verify(self) -> None:
        """Compare every file with the checksum in its manifest; reads the whole store.

        Raises:
            StoreError: a file is not as it was written; names all such files.
        """
        sets: list[tuple[Path, Manifest]] = [(candidates_folder(self.path), self.candidates)]
        sets += [(scores_folder(self.path, name), self.score_manifest(name)) for name in self.score_names()]
        changed = [
            str(folder / shard.file)
            for folder, manifest in sets
            for shard in manifest.shards
            if file_hash(folder / shard.file) != shard.sha256
        ]
        if changed:
            raise StoreError(f"changed since they were written: {', '.join(changed)}; restore them or make them again")

    def _given(self, score: TeacherScore) -> Floats:
        column = self.table([score])[score]
        values = floats(column)
        if column.null_count:
            first = int(np.flatnonzero(column.is_null().to_numpy())[0])
            raise StoreError(
                f"{self.path}: {score} is missing for {column.null_count} of {len(column)} candidates, first for "
                f"{self._label(first)}; use --data.teacher_score=ll with a score set ({_SCORE}), or alpha: 0, which "
                "needs none"
            )
        check_finite(values, score, self._label)
        return values

    def _label(self, row: int) -> str:
        keys = self.table(_KEYS).slice(row, 1).to_pylist()[0]
        return f"example {keys['example_id']!r}, candidate {keys['candidate_id']} of {self.path}"

    def _score_name(self, name: str | None) -> str:
        if name is not None:
            return name
        names = self.score_names()
        if len(names) == 1:
            return names[0]
        if names:
            raise StoreError(f"{self.path}: has the score sets {', '.join(names)}; say which one is meant")
        raise StoreError(f"{self.path}: has no finished score set; make one with {_SCORE}, or use alpha: 0")


def _opened(folder: Path, kind: type[M], what: str, command: str) -> M:
    """Load a manifest and check that its files are there in full length."""
    remedy = f"restore it, or delete {folder} and run {command}"
    if not folder.exists():
        raise StoreError(f"{folder}: no such {what}; make it with {command}")
    if not (folder / MANIFEST).exists():
        if (folder / PLAN).exists():
            done = len(list(folder.glob("part-*.parquet")))
            raise StoreError(f"{folder}: unfinished {what}, {done} shards so far; {command} continues it")
        raise StoreError(f"{folder}: no {what}, it has no {MANIFEST}; make one with {command}")
    manifest = load_manifest(folder / MANIFEST, kind)
    for shard in manifest.shards:
        file = inside(folder, shard.file)
        if not file.exists():
            raise StoreError(f"{file}: missing; {remedy}")
        size = file.stat().st_size
        if size != shard.bytes:
            raise StoreError(f"{file}: {size} bytes, but {shard.bytes} were written; {remedy}")
    return manifest
