"""Run folders as `fit` leaves them, written by hand: configuration, record and figures, no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

METHODS = {
    "baseline": {},
    "d": {"teacher_score": None},
    "dm_ll": {"teacher_score": "ll"},
    "dm_mi": {"teacher_score": "mi"},
    "m_ll": {"teacher_score": "ll", "data_level": False},
    "m_mi": {"teacher_score": "mi", "data_level": False},
}
LIST, WHOLE = 20, 100


def figures(hits: float, recall: float = 0.25, **more: float) -> dict[str, float]:
    """Figures of two sets and of both together."""
    own = {
        "hits_at_1_of_20": hits, "mrr_of_20": hits + 0.1, "recall_at_10": recall, "distinct_2": 0.3,
        "distinct_3": 0.5, "mean_length": 12.0, "examples": 40.0,
    }  # fmt: skip
    return {f"{name}/{key}": value for name in ("one", "two", "all") for key, value in {**own, **more}.items()}


def config_of(
    method: str = "baseline",
    encoder: str = "bi",
    seed: int = 1,
    alpha: float | None = None,
    temperature: float = 1.0,
    data: dict[str, Any] | None = None,
    trainer: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a saved configuration; the method's own settings first, then ``data``."""
    own = METHODS[method]
    weight = (0.1 if "_" in method else 0.0) if alpha is None else alpha
    kind = "Dialogue" if method == "baseline" else "AugmentedDialogue"
    settings = {"seed": seed, "batch_size": 48, "negatives": {"random": 64, "in_batch": False}, **own, **(data or {})}
    if method != "baseline":
        settings = {"store": f"stores/{seed}", "max_generated": None, "response_sources": None, **settings}
    inner = {"name_or_path": "package:x", **({"codes": 64, "code_type": "learned"} if encoder == "poly" else {})}
    return {
        "seed_everything": seed,
        "run": {"name": "whatever"},
        "data": {"class_path": f"g2r_lightning.data.{kind}DataModule", "init_args": settings},
        "model": {
            "class_path": "g2r_lightning.student.RetrievalStudent",
            "init_args": {
                "encoder": {
                    "class_path": f"g2r_lightning.student.{'Poly' if encoder == 'poly' else 'Bi'}Encoder",
                    "init_args": inner,
                },
                "loss": {
                    "class_path": "g2r_lightning.losses.G2RLoss",
                    "init_args": {"alpha": weight, "temperature": temperature},
                },
            },
        },
        "trainer": {"max_epochs": 3, "callbacks": None, **(trainer or {})},
    }


def write_run(
    folder: Path,
    config: dict[str, Any],
    test: dict[str, float] | None = None,
    record: dict[str, Any] | None = None,
    **results: dict[str, Any],
) -> Path:
    """Write a finished run; ``results`` are further files of ``results/``."""
    taught = "Augmented" in config["data"]["class_path"]
    facts: dict[str, Any] = {
        "train_hash": "t0", "train_examples": 1000, "evaluation_dialogues": {"test/one": 9, "test/two": 9},
    }  # fmt: skip
    if taught:
        facts |= {"candidates_hash": "c0", "scores_hash": "s0", "generated": {"most": 5, "mean": 4.5}}
    told = {"status": "finished", "seed": config["seed_everything"], "steps": 300, "used": {"precision": "32-true"}}
    record = dict(record or {})
    told |= {"data": {**facts, **record.pop("data", {})}, **record}
    (folder / "results").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "record.json").write_text(json.dumps(told))
    for name, found in {"test": figures(0.6) if test is None else test, **results}.items():
        (folder / f"results/{name}.json").write_text(json.dumps(found))
    return folder


def write_examples(folder: Path, dataset: str, ranks: list[tuple[int, int]], dialogues: int = 5) -> None:
    """Write what a run kept of single examples: (rank in the list, rank in the whole set) of each."""
    columns = {
        "example_id": [f"{dataset}:d{i % dialogues}:{i}" for i in range(len(ranks))],
        "dialogue_id": [f"{dataset}:d{i % dialogues}" for i in range(len(ranks))],
        "context": [["hello", f"turn {i} of {dataset}"] for i in range(len(ranks))],
        "response": [f"the human response number {i}" for i in range(len(ranks))],
        "list_rank": [rank for rank, _ in ranks],
        "list_size": [LIST] * len(ranks),
        "full_rank": [rank for _, rank in ranks],
        "reply": [f"a reply number {i % 3}" for i in range(len(ranks))],
        "reply_score": [0.5] * len(ranks),
        "reply_source": ["original"] * len(ranks),
    }
    (folder / "examples").mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / f"examples/test-{dataset}.parquet")


def latency(student: float, teacher: float = 800.0, **conditions: Any) -> dict[str, Any]:
    """Figures of a latency study."""
    found: dict[str, Any] = {"contexts": "200 of contexts.json", "threads": 2, "cpu": "a CPU", **conditions}
    for name, mean in {"student pytorch": student, "big beam": teacher, "big greedy": teacher / 2}.items():
        found |= {f"{name}/mean_ms": mean, f"{name}/p50_ms": mean, f"{name}/calls": 200.0}
    return found
