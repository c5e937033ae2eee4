"""Finished runs made from nothing: what `fit` leaves of a student's test, with ranks and replies as tests want them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from g2r_lightning.metrics import RetrievalMetrics, reply_diversity
from g2r_lightning.studies.replies import answer_ids

Rows = list[dict[str, Any]]
WORDS = ("tea", "dog", "rain", "sea", "song", "train", "bread", "moon")


def rows(dialogues: int = 12, turns: int = 3, skill: float = 0.5, seed: int = 0, name: str = "one") -> Rows:
    """Examples of a set; the ranks and replies are a seeded draw, better with more skill."""
    draw = np.random.default_rng(seed)
    made = []
    for dialogue in range(dialogues):
        for turn in range(1, turns + 1):
            rank = 1 if draw.random() < skill else int(draw.integers(2, 21))
            said = " ".join(draw.choice(WORDS, 3 + turn % 2))
            made.append({
                "example_id": f"{name}:d{dialogue}:{turn}", "dialogue_id": f"{name}:d{dialogue}",
                "context": [f"hello {dialogue}", f"turn {turn}"], "response": f"answer {dialogue} {turn}",
                "list_rank": rank, "list_size": 20, "list_hash": f"{name}{dialogue}{turn}",
                "full_rank": rank * int(draw.integers(1, 9)), "reply": said, "reply_score": 1.0,
                "reply_source": "generated" if draw.random() < 0.3 else "original",
            })  # fmt: skip
    return made


def figures(sets: Mapping[str, Rows]) -> dict[str, float]:
    """The results of such examples, from the project's own metrics."""
    every = {**sets, "all": [row for own in sets.values() for row in own]}
    found: dict[str, float] = {}
    for name, own in every.items():
        counted = RetrievalMetrics(max_candidates=64)
        counted.update(*(column(own, key) for key in ("list_rank", "list_size", "full_rank")))
        told = {**counted.compute(), **reply_diversity([row["reply"] for row in own])}
        told["generated_share"] = float(np.mean([row["reply_source"] == "generated" for row in own]))
        found |= {f"{name}/{key}": float(value) for key, value in told.items()}
    return found


def column(own: Rows, key: str) -> Any:
    """A column of ranks as a tensor."""
    import torch

    return torch.tensor([row[key] for row in own])


def write_run(
    folder: Path,
    sets: Mapping[str, Rows] | None = None,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    record: Mapping[str, Any] | None = None,
    stage: str = "test",
) -> Path:
    """Write a run's folder and return it.

    Args:
        folder: of the run.
        sets: its examples; two sets by default.
        seed: in configuration and record.
        config: settings beside the seed.
        record: facts beside status and seed.
        stage: of the results.
    """
    sets = {"one": rows(seed=seed), "two": rows(9, 2, seed=seed + 100, name="two")} if sets is None else sets
    for name in ("results", "examples"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    settings = {"seed_everything": seed, "data": {"init_args": {"seed": seed, "evaluation_seed": 0, "choices": 20}}}
    settings |= {"run": {"name": folder.name}, **(config or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "record.json").write_text(json.dumps({"status": "finished", "seed": seed, **(record or {})}))
    (folder / f"results/{stage}.json").write_text(json.dumps(figures(sets)))
    for name, own in sets.items():
        pq.write_table(pa.Table.from_pylist(own), folder / f"examples/{stage}-{name}.parquet")
    return folder


def write_seeds(root: Path, name: str, skill: float, seeds: Sequence[int], spread: float = 0.0) -> list[Path]:
    """Write a system's runs, whose skill differs by ``spread`` from seed to seed."""
    return [
        write_run(
            root / f"{name}-s{seed}", {"one": rows(30, 4, skill + spread * (seed - 1), seed=seed)}, seed,
            config={"model": {"name": name}},
        )
        for seed in seeds
    ]  # fmt: skip


def write_answers(folder: Path, replies: Sequence[str], scores: Sequence[float] | None = None) -> None:
    """Leave what `predict` leaves of contexts without a human response, two a dialogue, and what `quality` does."""
    lines = [
        {"id": f"talks:d{n // 2}:{n % 2}", "context": [f"so {n}"], "replies": [{"text": text, "source": "original"}]}
        for n, text in enumerate(replies)
    ]
    (folder / "predictions").mkdir(exist_ok=True)
    (folder / "predictions/talks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    if scores is not None:
        ids = answer_ids("talks", len(replies))
        table = pa.table({"example_id": ids, "reply": list(replies), "quality": list(scores)})
        pq.write_table(table, folder / "examples/quality-talks.parquet")


def judge(folder: Path, scores: Mapping[str, Sequence[float]], metric: str = "abc") -> None:
    """Leave what `quality` leaves: the learned metric's score of every example."""
    for name, own in scores.items():
        table = pq.read_table(folder / f"examples/test-{name}.parquet", columns=["example_id", "dialogue_id", "reply"])
        table = table.append_column("quality", pa.array([float(score) for score in own]))
        pq.write_table(table, folder / f"examples/quality-{name}.parquet")
    record = json.loads((folder / "record.json").read_text())
    record["quality_metric"] = {"sha256": metric, "stage": "test"}
    (folder / "record.json").write_text(json.dumps(record))
