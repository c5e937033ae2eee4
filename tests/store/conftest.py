from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from g2r_lightning.dialogue import Candidate, Example
from g2r_lightning.store import (
    SCORE_SCHEMA,
    CandidateStore,
    ScoreRow,
    ShardWriter,
    candidate_plan,
    describe_data,
    score_plan,
    scores_folder,
    write_store_from_examples,
)
from g2r_lightning.store.manifest import CandidateManifest

TEACHER = {"name": "blender", "revision": "abc", "weights_hash": "0" * 8, "dtype": "float32"}


@pytest.fixture
def examples() -> list[Example]:
    """Seven examples; example i has i % 3 further candidates."""
    return [
        Example(
            id=f"toy:{i}:2",
            context=(f"hi {i}", "¿qué tal? 🙂"),
            response=f"reply {i}",
            candidates=tuple(Candidate(f"generated {i}.{j}", "generated") for j in range(i % 3)),
        )
        for i in range(7)
    ]


@pytest.fixture
def plan(examples: list[Example]) -> CandidateManifest:
    return candidate_plan(describe_data(examples), TEACHER, {"history": 20}, {"top_p": 0.9, "m": 2}, 3)


@pytest.fixture
def store(tmp_path: Path, examples: list[Example]) -> CandidateStore:
    write_store_from_examples(tmp_path / "store", examples, TEACHER, examples_per_shard=3)
    return CandidateStore(tmp_path / "store")


@pytest.fixture
def add_scores() -> Callable[..., None]:
    """Write a score set; by default row r has log-likelihood -(r + 1) over r + 2 tokens and no prior."""

    def add(store: CandidateStore, name: str, change: Callable[[int, ScoreRow], ScoreRow] | None = None) -> None:
        writer = ShardWriter(scores_folder(store.path, name), SCORE_SCHEMA, score_plan(store.candidates, TEACHER))
        writer.begin()
        number = 0
        for index in range(writer.num_shards):
            rows = []
            for example in store.shard(index):
                for candidate in example.candidates:
                    row = ScoreRow(example.example_id, candidate.candidate_id, -(number + 1.0), number + 2)
                    rows.append(change(number, row) if change else row)
                    number += 1
            writer.write(index, rows)
        writer.finish()

    return add
