"""Candidates that others made: into a store, and out of it in the form of the authors' release.

The authors released one JSON object for each (context, response) pair,
``{"context": [...], "response": "...", "source": "original", "score_infos": {"ll": ..., "mi": ...}}``; lines with the
same context are one example with several candidates. Their ready-made scores stay beside the candidates, as
``given_ll`` and ``given_mi``, since the sums and counts behind them are not known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from g2r_lightning.dialogue.types import ORIGINAL, Candidate, Example
from g2r_lightning.errors import StoreError
from g2r_lightning.paths import alone_in, atomic_path, resolve_path
from g2r_lightning.store.hashing import describe_data
from g2r_lightning.store.manifest import CandidateManifest, candidate_plan
from g2r_lightning.store.reader import CandidateStore
from g2r_lightning.store.schema import CANDIDATE_SCHEMA, EXAMPLES_PER_SHARD, CandidateRow, candidates_folder
from g2r_lightning.store.scores import Floats
from g2r_lightning.store.writer import ShardWriter


def candidate_rows(example: Example) -> list[CandidateRow]:
    """Return an example's rows: its response first, then its other candidates in their order.

    The first candidate of source ``original`` with exactly the response's text is the response itself, with the scores
    that it brought: it moves to the front. Nothing is dropped; duplicates are for whoever makes or samples candidates.

    Raises:
        StoreError: a candidate is masked out of the cross-entropy, for which the store has no column.
    """
    others = list(example.candidates)
    same = (i for i, other in enumerate(others) if other.source == ORIGINAL and other.response == example.response)
    home = next(same, None)
    first = Candidate(example.response) if home is None else others.pop(home)
    rows = []
    for number, candidate in enumerate((first, *others)):
        if not candidate.positive:
            raise StoreError(
                f"example {example.id!r}: candidate {candidate.response!r} is masked (positive: false), which a store "
                "cannot hold; drop it from the data"
            )
        rows.append(
            CandidateRow(
                example.id,
                number,
                example.context,
                candidate.response,
                candidate.source,
                candidate.given_ll,
                candidate.given_mi,
            )
        )
    return rows


def write_store_from_examples(
    path: str | Path,
    examples: Iterable[Example],
    teacher: Mapping[str, str | None] | None = None,
    template: Mapping[str, Any] | None = None,
    sampling: Mapping[str, Any] | None = None,
    examples_per_shard: int = EXAMPLES_PER_SHARD,
) -> CandidateManifest:
    """Write the candidates that came with the examples; a killed call is continued by the same call.

    Args:
        path: the store's folder; refused if it holds candidates made from anything else.
        examples: with their :attr:`~g2r_lightning.dialogue.Example.candidates`; held in memory.
        teacher: who wrote them: ``name``, ``revision``, ``weights_hash``, ``dtype``; all unknown by default.
        template: how the teacher was shown the context, if known.
        sampling: how it was sampled, if known; a hash of all candidates is added.
        examples_per_shard: at least 1.

    Returns:
        The finished manifest.

    Raises:
        StoreError: no examples, two with one id, a masked candidate, text that is no Unicode, or a foreign folder.
    """
    held = list(examples)
    if not held:
        raise StoreError(f"{path}: there are no examples to make a store of; check the data section")
    plan = candidate_plan(
        describe_data(held),
        teacher or dict.fromkeys(("name", "revision", "weights_hash", "dtype")),
        template,
        {**(sampling or {}), "imported_candidates_hash": rows_hash(held)},
        examples_per_shard,
    )
    writer = ShardWriter(candidates_folder(path), CANDIDATE_SCHEMA, plan)
    with alone_in(writer.folder):
        writer.begin()
        for index in writer.pending_shards():
            writer.write(index, [row for i in writer.shard_range(index) for row in candidate_rows(held[i])])
        return writer.finish()


def export_g2r_release(store: CandidateStore, path: str | Path, scores: Mapping[str, Floats] | None = None) -> int:
    """Write a store as the authors' JSONL, one line for each candidate, in the order of the rows.

    Args:
        store: what to write.
        path: the file; it appears when it is complete, and replaces one of that name.
        scores: key in ``score_infos`` -> (R,) float from :meth:`CandidateStore.teacher_scores`. By default the given
            scores under ``ll`` and ``mi``; a missing one is left out.

    Returns:
        How many lines were written.

    Raises:
        StoreError: a score is NaN or infinite (names example and candidate).
        ValueError: an array has another length than the store has rows.
    """
    for key, values in (scores or {}).items():
        if len(values) != store.candidates.num_rows:
            raise ValueError(f"{len(values)} scores {key!r} for {store.candidates.num_rows} candidates")
    number = 0
    with atomic_path(resolve_path(path)) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for example in store.examples():
            for row in example.candidates:
                infos = _given(row) if scores is None else {key: float(array[number]) for key, array in scores.items()}
                file.write(_line(row, infos))
                number += 1
    return number


def _line(row: CandidateRow, infos: Mapping[str, float]) -> str:
    record = {"context": list(row.context), "response": row.response, "source": row.source, "score_infos": infos}
    try:
        return f"{json.dumps(record, ensure_ascii=False, allow_nan=False)}\n"
    except ValueError as error:
        raise StoreError(
            f"example {row.example_id!r}, candidate {row.candidate_id}: its scores {infos} are not all finite, which "
            "JSON cannot hold; score it again"
        ) from error


def _given(row: CandidateRow) -> dict[str, float]:
    given = {"ll": row.given_ll, "mi": row.given_mi}
    return {key: value for key, value in given.items() if value is not None}


def rows_hash(examples: Iterable[Example]) -> str:
    """Return the hash of the rows that the examples bring, their contexts aside."""
    total = hashlib.sha256()
    for example in examples:
        for row in candidate_rows(replace(example, context=())):
            total.update(
                json.dumps([row.example_id, row.response, row.source, row.given_ll, row.given_mi]).encode() + b"\n"
            )
    return total.hexdigest()
