"""lightning-ir from Python, as its documentation has it: its module, data module and trainer.

Its data sets come from ir_datasets; here the job's pairs take the place of a registered set's tuples, with the same
samples. Its in-batch cross-entropy has no scale, so the scores are plain cosines, which costs the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning_ir import (
    BiEncoderModule,
    InBatchCrossEntropy,
    LightningIRDataModule,
    LightningIRTrainer,
    TupleDataset,
)
from lightning_ir.data import RankSample
from lightning_ir.models import DprConfig
from worker import Run, Stopwatch, Unavailable, serve

PACKAGES = ("lightning-ir", "torch", "transformers", "lightning")


class Pairs(TupleDataset):
    """The job's pairs: a query with one document."""

    def __init__(self, pairs: list[dict[str, Any]]) -> None:
        torch.utils.data.IterableDataset.__init__(self)
        self.pairs = pairs

    def __iter__(self) -> Iterator[RankSample]:
        """Yield the pairs as they stand."""
        for number, pair in enumerate(self.pairs):
            yield RankSample(str(number), pair["text"], (str(number),), (pair["response"],), torch.ones(1))

    def prepare_data(self) -> None:
        """Nothing is downloaded."""


class Watch(Callback):
    """Time the loop alone: from before the first batch is drawn to after the last step."""

    def __init__(self) -> None:
        self.stopwatch = Stopwatch()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Begin."""
        self.stopwatch.start()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """End."""
        self.stopwatch.stop()


def prepare(job: dict[str, Any]) -> Run:
    """Return a round: one epoch over the job's pairs."""
    if job["name"] != "training":
        raise Unavailable(f"not written for {job['name']}")
    torch.manual_seed(job["seed"])
    config = DprConfig(
        query_length=job["context_tokens"], doc_length=job["response_tokens"], similarity_function="cosine",
        query_pooling_strategy="mean", doc_pooling_strategy="mean", projection=None,
    )  # fmt: skip
    module = BiEncoderModule(model_name_or_path=job["model"], config=config, loss_functions=[InBatchCrossEntropy()])
    module.train()
    module.set_optimizer(torch.optim.AdamW, lr=5e-5, weight_decay=0.0)

    def run(warm_up: bool) -> dict[str, Any]:
        pairs = job["pairs"][: job["warm_up"]] if warm_up else job["pairs"]
        watch = Watch()
        trainer = LightningIRTrainer(
            accelerator="cpu" if job["device"] == "cpu" else "gpu", devices=1, max_epochs=1, gradient_clip_val=1.0,
            logger=False, callbacks=[watch], enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, LightningIRDataModule(train_dataset=Pairs(pairs), train_batch_size=job["batch_size"]))
        return {**watch.stopwatch.elapsed, "units": len(pairs), "steps": trainer.global_step}

    return run


if __name__ == "__main__":
    serve(prepare, PACKAGES)
