"""sentence-transformers as its authors document it: its trainer with its defaults, and ``SentenceTransformer.encode``.

https://sbert.net/docs/sentence_transformer/training_overview.html. Batch size and number of epochs are the job's;
everything else is left as it comes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
)
from transformers import TrainerCallback
from worker import Run, Stopwatch, Unavailable, serve

PACKAGES = ("sentence-transformers", "torch", "transformers", "accelerate", "datasets")


class Watch(TrainerCallback):
    """Time the loop alone: from before the first batch is drawn to after the last step."""

    def __init__(self) -> None:
        self.stopwatch = Stopwatch()
        self.steps = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Begin."""
        self.stopwatch.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """End."""
        self.stopwatch.stop()
        self.steps = state.global_step


def pairs_dataset(pairs: list[dict[str, Any]]) -> Dataset:
    """Return (anchor, positive), which MultipleNegativesRankingLoss takes."""
    return Dataset.from_dict({"anchor": [p["text"] for p in pairs], "positive": [p["response"] for p in pairs]})


def scored_dataset(pairs: list[dict[str, Any]]) -> Dataset:
    """Return (query, positive, negative_1, ...) with the teacher's scores as label, which DistillKLDivLoss takes."""
    columns: dict[str, Any] = {"query": [p["text"] for p in pairs], "positive": [p["response"] for p in pairs]}
    for number in range(1, len(pairs[0]["candidates"])):
        columns[f"negative_{number}"] = [p["candidates"][number] for p in pairs]
    columns["label"] = [p["scores"] for p in pairs]
    return Dataset.from_dict(columns)


def training(job: dict[str, Any]) -> Run:
    """Return a round of training: one epoch over the job's pairs."""
    model = SentenceTransformer(job["model"], device=job["device"])
    distil = job["name"] == "distillation"
    make = scored_dataset if distil else pairs_dataset
    loss = losses.DistillKLDivLoss(model) if distil else losses.MultipleNegativesRankingLoss(model)

    def run(warm_up: bool) -> dict[str, Any]:
        pairs = job["pairs"][: job["batch_size"]] if warm_up else job["pairs"]
        watch = Watch()
        arguments = SentenceTransformerTrainingArguments(
            output_dir=f"{job['scratch']}/sbert", num_train_epochs=1, per_device_train_batch_size=job["batch_size"],
            save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=job["device"] == "cpu", seed=job["seed"],
        )  # fmt: skip
        SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=make(pairs), loss=loss, callbacks=[watch]
        ).train()
        return {**watch.stopwatch.elapsed, "units": len(pairs), "steps": watch.steps}

    return run


def encoding(job: dict[str, Any]) -> Run:
    """Return a round of encoding: a file of texts, one a line, to a file of vectors."""
    model = SentenceTransformer(job["model"], device=job["device"])
    out = f"{job['scratch']}/encoding-sbert.npy"

    def run(warm_up: bool) -> dict[str, Any]:
        stopwatch = Stopwatch()
        stopwatch.start()
        with open(job["texts"], encoding="utf-8") as file:  # noqa: PTH123
            texts = file.read().splitlines()
        texts = texts[: job["warm_up"]] if warm_up else texts
        np.save(out, model.encode(texts))
        stopwatch.stop()
        return {**stopwatch.elapsed, "units": len(texts), "vectors": out}

    return run


def prepare(job: dict[str, Any]) -> Run:
    """Choose by the job's name."""
    torch.manual_seed(job["seed"])
    if job["name"] in ("training", "distillation"):
        return training(job)
    if job["name"] == "encoding":
        return encoding(job)
    raise Unavailable(f"not written for {job['name']}")


if __name__ == "__main__":
    serve(prepare, PACKAGES)
