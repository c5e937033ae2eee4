"""The learned metric as a LightningModule: binary cross-entropy of true responses against spoilt ones.

A shell around the network (:mod:`g2r_lightning.metrics.unreferenced`) and the frozen encoder. The encoder is no part of
the checkpoint, which names its weights by a hash instead and refuses another encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import AdamW

from g2r_lightning.data.judged_set import JudgedBatch, JudgedSet
from g2r_lightning.data.metric_module import CorruptedDialogueDataModule
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.metrics.unreferenced import UnreferencedMetric, balanced_cross_entropy, side_counts
from g2r_lightning.optimisation import FusedClipping, Schedule
from g2r_lightning.studies.unreferenced.figures import Judged, figures
from g2r_lightning.studies.unreferenced.utterances import UtteranceEncoder

CHECKPOINT_KEY = "g2r_unreferenced"
TOGETHER = "all"
COMPONENTS_FROM = 20_000
"""Vectors that the principal components are found from, at most."""


class UnreferencedModule(FusedClipping):
    """Train a metric in MaUdE's form.

    Args:
        encoder: reads utterances; frozen.
        history: how many of the context's last utterances are read.
        projection: size of a projected utterance (Sinha et al. 2020: 300).
        start: the projection begins as the principal components of the training texts (``pca``), or at random
            (``random``); either way it is trained with the rest.
        memory: size of the LSTM's state.
        layers: of the LSTM (Sinha et al. 2020: 2).
        hidden: size of the classifier's hidden layer (Sinha et al. 2020: 200).
        dropout: of the metric's own layers.
        optimizer: AdamW at 1e-3 unless told.
        schedule: of the learning rate.
    """

    def __init__(
        self,
        encoder: UtteranceEncoder,
        history: int = 20,
        projection: int = 300,
        start: Literal["pca", "random"] = "pca",
        memory: int = 300,
        layers: int = 2,
        hidden: int = 200,
        dropout: float = 0.1,
        optimizer: OptimizerCallable | None = None,
        schedule: Schedule = Schedule(),
    ) -> None:
        super().__init__()
        sizes = {"history": history, "projection": projection, "memory": memory, "layers": layers, "hidden": hidden}
        for name, size in sizes.items():
            if size < 1:
                raise ConfigError(f"model.init_args.{name}={size}: at least 1")
        if not 0 <= dropout < 1:
            raise ConfigError(f"model.init_args.dropout={dropout}: from 0 to below 1")
        if start == "pca" and projection > encoder.dimension:
            raise ConfigError(
                f"model.init_args.projection={projection}: this encoder's vectors have {encoder.dimension} dimensions, "
                f"so there are no more principal components; set at most that, or model.init_args.start to random"
            )
        self.encoder = encoder
        self.history = history
        self.start = start
        self.metric = UnreferencedMetric(encoder.dimension, projection, memory, layers, hidden, dropout)
        self._build_optimizer = optimizer or (lambda parameters: AdamW(parameters, lr=1e-3))
        self.schedule = schedule
        self._sizes = sizes
        self._judged: list[list[Judged]] = []

    # -- what the data module asks -----------------------------------------------------------------------------------

    def utterances(self, example: Example) -> Sequence[str]:
        """Return the utterances of a context that are read: the last ones."""
        return example.context[-self.history :]

    def text_reader(self) -> UtteranceEncoder:
        """Return the frozen encoder, on the device of this process."""
        return self.encoder.to(self.trainer.strategy.root_device)

    # -- training ----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Begin with the principal components; a checkpoint's weights, where one is gone on from, come afterwards.

        Raises:
            ConfigError: the training set has fewer texts than the projection has dimensions.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        if stage != "fit" or self.start != "pca" or not isinstance(data, CorruptedDialogueDataModule):
            return
        table = data.vectors("fit")
        rows = np.linspace(0, len(table) - 1, min(len(table), COMPONENTS_FROM)).astype(np.int64)
        try:
            self.metric.start_from(torch.from_numpy(table.take(rows)))
        except ValueError as error:
            raise ConfigError(
                f"model.init_args.projection={self._sizes['projection']}: {error}; give more training dialogues, a "
                "smaller projection, or model.init_args.start=random"
            ) from error

    def logits(self, batch: JudgedBatch) -> Tensor:
        """Return (N,) float32 logits, in full precision whatever the trainer's."""
        with torch.autocast(batch.responses.device.type, enabled=False):
            found: Tensor = self.metric(batch.contexts, batch.lengths, batch.responses, batch.owners)
        return found

    def training_step(self, batch: JudgedBatch, batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """Return this process's part of the balanced cross-entropy of one step.

        Raises:
            G2RError: it is not finite.
        """
        logits = self.logits(batch)
        counts: Any = side_counts(batch.true)
        loss = balanced_cross_entropy(logits, batch.true, self.trainer.strategy.reduce(counts, reduce_op="mean"))
        shown: Any = self.trainer.strategy.reduce(loss.detach().clone(), reduce_op="mean")
        if not torch.isfinite(shown):  # the same on every process: one alone would leave the others waiting
            known = getattr(getattr(self.trainer, "datamodule", None), "train_examples", None)
            numbers = sorted(set(batch.examples.tolist()))[:5]
            examples = ", ".join(known[i].id if known else str(i) for i in numbers)
            raise G2RError(
                f"the loss is {shown.item()} at step {self.trainer.global_step}, with the examples {examples}: lower "
                "the learning rate"
            )
        right = ((logits >= 0) == batch.true).float().mean()
        self.log("train/loss", shown, prog_bar=True, batch_size=len(batch.examples))
        self.log("train/accuracy", right, batch_size=len(batch.examples))
        return loss

    def configure_optimizers(self) -> Any:
        """Build optimiser and schedule.

        Raises:
            ConfigError: the optimiser refuses its settings.
        """
        try:
            optimizer = self._build_optimizer(self.parameters())
        except (TypeError, ValueError) as error:
            raise ConfigError(f"model.init_args.optimizer: {error}") from error
        return self.schedule.configure(optimizer, int(self.trainer.estimated_stepping_batches))

    # -- evaluation --------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Start anew."""
        self._judged = []

    def validation_step(self, batch: JudgedBatch, batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ARG002
        """Score a batch of a set."""
        while len(self._judged) <= dataloader_idx:
            self._judged.append([])
        owners = batch.examples[batch.owners].cpu()
        self._judged[dataloader_idx].append(Judged(owners, batch.kinds.cpu(), self.logits(batch).sigmoid().cpu()))

    def on_validation_epoch_end(self) -> None:
        """Log ``validation/<set>/<figure>`` of each set, and with ``all`` of the sets together."""
        self._report("validation")

    def on_test_epoch_start(self) -> None:
        """Start anew."""
        self._judged = []

    def test_step(self, batch: JudgedBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score a batch of a set."""
        self.validation_step(batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Log the same figures under ``test/``, with intervals over dialogues."""
        self._report("test")

    def _report(self, stage: str) -> None:
        data: Any = getattr(self.trainer, "datamodule", None)
        sets: list[JudgedSet] = data.evaluation_sets(stage)
        judged = self._of_all_processes()
        logged: dict[str, float] = {}
        together: list[Judged] = []
        dialogues: list[str] = []
        for one, scores in zip(sets, judged, strict=False):
            own = [example.dialogue_id for example in one.examples]
            found = figures(scores, one.kinds, own if stage == "test" else None)
            logged |= {f"{stage}/{one.name}/{key}": value for key, value in found.items()}
            together.append(scores._replace(examples=scores.examples + len(dialogues)))
            dialogues += own
        if together:
            found = figures(Judged.joined(together), sets[0].kinds, dialogues if stage == "test" else None)
            logged |= {f"{stage}/{TOGETHER}/{key}": value for key, value in found.items()}
        self.log_dict(logged, sync_dist=True)  # every process has the same: their mean is each

    def _of_all_processes(self) -> list[Judged]:
        """Return the scores of each set, those of other processes included."""
        parts: list[Any] = [self._judged]
        if self.trainer.world_size > 1:
            import torch.distributed as dist

            parts = [None] * dist.get_world_size()
            dist.all_gather_object(parts, self._judged)
        count = max(map(len, parts), default=0)
        gathered = [[one for part in parts if len(part) > place for one in part[place]] for place in range(count)]
        return [Judged.joined(found) for found in gathered if found]

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return what changes what a score means, beside the weights."""
        return {"encoder": self.encoder.describe(), "history": self.history}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put what the weights were fitted for beside them."""
        checkpoint[CHECKPOINT_KEY] = self.describe()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another metric.

        Raises:
            ConfigError: names what differs.
        """
        fitted = checkpoint.get(CHECKPOINT_KEY)
        if fitted is None:
            raise ConfigError("this checkpoint holds no learned metric of g2r_lightning; name another --ckpt_path")
        clashes = [
            f"{key}: the checkpoint has {fitted.get(key)!r}, the configuration {value!r}"
            for key, value in self.describe().items()
            if fitted.get(key) != value
        ]
        mine = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        there = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
        if not clashes and mine != there:
            name = next(name for name in sorted({*mine, *there}) if mine.get(name) != there.get(name))
            clashes = [f"{name} is {there.get(name)} in the checkpoint, {mine.get(name)} here"]
        if clashes:
            raise ConfigError(
                "checkpoint and configuration disagree; use the run's own config.yaml, or set\n  "
                + "\n  ".join(clashes)
            )
