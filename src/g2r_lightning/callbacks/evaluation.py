"""Retrieval metrics of every validation and test epoch: encode the response set, build its index, rank, report.

The same callback serves ``fit``, ``validate`` and ``test``, so a figure means the same wherever it stands. Everything
is logged as ``<stage>/<set>/<figure>``, with ``all`` for the sets together, and written to ``results/<stage>.json`` and
``examples/<stage>-<set>.parquet`` of the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from g2r_lightning.callbacks.labelled import Labelled
from g2r_lightning.callbacks.ranked_set import RankedSet, Ranks, reply_figures
from g2r_lightning.data.batches import EvaluationBatch
from g2r_lightning.data.modules import DialogueDataModule
from g2r_lightning.data.tokens import response_table
from g2r_lightning.errors import ConfigError
from g2r_lightning.index import ResponseIndex, encode_rows, weights_hash
from g2r_lightning.index.encode import rounded
from g2r_lightning.metrics import RetrievalMetrics
from g2r_lightning.paths import atomic_path
from g2r_lightning.progress import progress_bar
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.module import RetrievalStudent

TOGETHER = "all"
ROWS_SENT = 65_536  # vectors that one process sends at a time


class RetrievalEvaluation(Labelled):
    """Build the index over the response set and log retrieval metrics.

    Evaluating the same weights again (the best checkpoint after the last epoch, often) encodes nothing again.

    Args:
        factory: FAISS factory string of the index that answers; ``Flat`` is exact. Recall is always exact.
        search: FAISS search parameters of that index, ``{efSearch: 256}`` for HNSW, ``{nprobe: 16}`` for IVF.
        sample_replies: how many contexts of each set are written to TensorBoard with their best replies.
        progress: show a bar while the response set is encoded.
    """

    def __init__(
        self,
        factory: str = "Flat",
        search: dict[str, float] | None = None,
        sample_replies: int = 5,
        progress: bool = True,
    ) -> None:
        super().__init__()
        self.factory = factory
        self.search = search
        self.sample_replies = sample_replies
        self.progress = progress
        self.index: ResponseIndex | None = None
        self._built: tuple[str, ResponseIndex, Tensor] | None = None
        self._sets: list[RankedSet] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Encode the response set and build its index."""
        self._begin(trainer, pl_module, "validation")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Encode the response set and build its index."""
        self._begin(trainer, pl_module, "test")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: EvaluationBatch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Rank a batch of contexts."""
        self._sets[dataloader_idx].add(outputs, batch.examples)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: EvaluationBatch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Rank a batch of contexts."""
        self._sets[dataloader_idx].add(outputs, batch.examples)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log and write the figures."""
        self._finish(trainer, pl_module, "validation")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log and write the figures."""
        self._finish(trainer, pl_module, "test")

    def built(
        self, trainer: Trainer, student: RetrievalStudent, data: DialogueDataModule
    ) -> tuple[ResponseIndex, Tensor]:
        """Return the index and the vectors of the response set under the student's present weights."""
        weights = weights_hash(student.encoder)
        if self._built is None or self._built[0] != weights:
            made = build_index(trainer, student, data, self.factory, self.progress, self.search)
            self._built = (weights, *made)
        return self._built[1:]

    def _begin(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        student, data = parts(trainer, pl_module)
        self.index, answers = self.built(trainer, student, data)
        self._sets = []
        for dataset in data.evaluation_sets(stage):
            extra = encode_texts(trainer, student, data, dataset.extra_texts, False)
            vectors = torch.cat([answers, extra]) if len(extra) else answers
            self._sets.append(RankedSet(dataset, self.index, vectors, student.encoder.score))

    def _finish(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        sets, self._sets = self._sets, []
        if trainer.world_size > 1:
            _gather(sets)
        if not any(len(one.ranked.examples) for one in sets):
            return
        figures = all_figures(sets, intervals=stage == "test")
        pl_module.log_dict({f"{stage}/{key}": value for key, value in figures.items()}, rank_zero_only=False)
        pl_module.log(f"{stage}_hits_at_1", _headline(figures), prog_bar=True, logger=False)
        if trainer.is_global_zero and not trainer.sanity_checking:
            self._write(trainer, stage, sets, figures)

    def _write(self, trainer: Trainer, stage: str, sets: list[RankedSet], figures: dict[str, float]) -> None:
        name, folder = self.label or stage, Path(trainer.default_root_dir)
        for one in sets:
            one.write(folder / "examples" / f"{name}-{one.dataset.name}.parquet")
        about = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        with atomic_path(folder / "results" / f"{name}.json") as temporary:
            temporary.write_text(json.dumps({**figures, **about}, indent=2) + "\n", encoding="utf-8")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for one in sets:
                    text = sample_text(one, self.sample_replies)
                    logger.experiment.add_text(f"{name}/{one.dataset.name}/replies", text, trainer.global_step)


def parts(trainer: Trainer, pl_module: LightningModule) -> tuple[RetrievalStudent, DialogueDataModule]:
    """Return student and data module of a trainer.

    Raises:
        ConfigError: they are of another kind.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(pl_module, RetrievalStudent) or not isinstance(data, DialogueDataModule):
        raise ConfigError(
            "this callback evaluates a g2r_lightning.student.RetrievalStudent on a data module of g2r_lightning.data; "
            "remove it from trainer.callbacks for other models"
        )
    return pl_module, data


def encode_texts(
    trainer: Trainer, student: RetrievalStudent, data: DialogueDataModule, texts: list[str], progress: bool
) -> Tensor:
    """Return (len(texts), d) vectors of responses, on the CPU of every process; each has encoded its share of them.

    All processes of the trainer have to call this, with the same texts.
    """
    table = response_table(student.text, texts, data.cache_dir)
    lengths = np.array([len(table[row]) for row in range(len(table))], np.int64)
    shares = shares_by_length(lengths, trainer.world_size)
    own = shares[trainer.global_rank]
    training = student.training
    student.eval()
    mixed = str(trainer.precision) == "bf16-mixed" and isinstance(student.encoder, StudentEncoder)  # an export is not
    encoder = rounded(student.encoder) if mixed else student.encoder
    hidden = not progress or not trainer.is_global_zero
    bar = progress_bar(total=len(own), desc="encoding responses", unit="response", disable=hidden, leave=False)
    with bar, trainer.precision_plugin.forward_context():
        vectors = encode_rows(
            encoder.encode_responses,
            [table[row] for row in own],
            student.text.pad_id,
            student.device,
            lambda done: _advance(bar, done),
        )
    student.train(training)
    if trainer.world_size == 1:
        return vectors[torch.from_numpy(np.argsort(own))] if len(own) else vectors
    return _gathered(trainer, vectors, student.encoder.dimension, shares)


def shares_by_length(lengths: npt.NDArray[np.int64], count: int) -> list[npt.NDArray[np.int64]]:
    """Deal rows out to ``count`` processes, the longest first, so that all have as much to do.

    Returns:
        The rows of each process; their numbers differ by one at most.
    """
    order = np.argsort(-lengths, kind="stable")
    return [order[rank::count] for rank in range(count)]


def _gathered(trainer: Trainer, own: Tensor, dimension: int, shares: list[npt.NDArray[np.int64]]) -> Tensor:
    """Return all vectors in the order of the texts, given those of each process's share; some at a time on the device.

    The first process has the largest share, so that the others send a row of zeros with their last ones.
    """
    count, most = sum(map(len, shares)), len(shares[0])
    vectors = torch.empty(count, dimension)
    padded = torch.zeros(most, dimension)
    if len(own):
        padded[: len(own)] = own
    for start in range(0, most, ROWS_SENT):
        sent = padded[start : start + ROWS_SENT].to(trainer.strategy.root_device)  # the student may have left it
        parts: Any = trainer.strategy.all_gather(sent)
        for rank, share in enumerate(shares):
            rows = torch.from_numpy(share[start : start + ROWS_SENT])
            vectors[rows] = parts[rank, : len(rows)].cpu()
    return vectors


def build_index(
    trainer: Trainer,
    student: RetrievalStudent,
    data: DialogueDataModule,
    factory: str,
    progress: bool,
    search: Mapping[str, float] | None = None,
) -> tuple[ResponseIndex, Tensor]:
    """Return the index over the data's response set, and its vectors."""
    responses = data.response_set
    vectors = encode_texts(trainer, student, data, responses.texts, progress)
    index = ResponseIndex(responses.texts, responses.sources, vectors.numpy(), factory, search=search)
    return index, vectors


def all_figures(sets: list[RankedSet], intervals: bool) -> dict[str, float]:
    """Return ``<set>/<figure>`` of every set, and ``all/<figure>`` over the examples of all of them."""
    figures: dict[str, float] = {}
    for one in sets:
        figures |= {f"{one.dataset.name}/{key}": value for key, value in one.figures(intervals).items()}
    whole = RetrievalMetrics(max_candidates=max(one.longest_list for one in sets), sync=False)
    for one in sets:
        one.count(whole)
    replies = [row for one in sets for row in one.best_replies()]
    together = {**{k: float(v) for k, v in whole.compute().items()}, **reply_figures(sets[0].index, replies)}
    return figures | {f"{TOGETHER}/{key}": value for key, value in together.items()}


def sample_text(one: RankedSet, count: int) -> str:
    """Return some contexts of a set with their best replies, as Markdown."""
    ranked = one.ranked
    step = max(len(ranked.examples) // max(count, 1), 1)
    blocks = []
    for place in range(0, len(ranked.examples), step)[:count]:
        example = one.dataset.examples[int(ranked.examples[place])]
        lines = [f"> {turn}" for turn in example.context[-3:]]
        lines += [f"human: {example.response}  "]
        best = zip(ranked.replies[place, :3].tolist(), ranked.scores[place, :3].tolist(), strict=True)
        lines += [f"{score:.2f} *{one.index.sources[row]}*: {one.index.texts[row]}  " for row, score in best]
        blocks.append("\n".join(lines))
    return "\n\n---\n\n".join(blocks)


def _advance(bar: Any, done: int) -> None:
    bar.update(done)


def _headline(figures: dict[str, float]) -> float:
    """Return hits@1 of the list length that most examples have."""
    counts = {key: value for key, value in figures.items() if key.startswith(f"{TOGETHER}/examples_of_")}
    return figures[max(counts, key=counts.__getitem__).replace("/examples_of_", "/hits_at_1_of_")]


def _gather(sets: list[RankedSet]) -> None:
    """Give every process the ranked examples of all of them, in the sets' own order."""
    import torch.distributed as dist

    for one in sets:
        parts_of_all: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts_of_all, one.ranked)
        one.ranked = Ranks.joined(parts_of_all)
