"""The student as a LightningModule: encode the step's texts once, one score matrix, one loss; one process or several.

This is the shell around the pure parts (encoder, text, loss): it logs, builds the optimiser, and refuses a checkpoint
that was fitted under other settings than the configuration's. Retrieval metrics are callbacks' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import AdamW

from g2r_lightning.data.batches import CandidateBatch, EvaluationBatch
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.hub import position_limit
from g2r_lightning.losses import G2RLoss
from g2r_lightning.optimisation import FusedClipping, Schedule
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.gathering import counts_a_process, gather_vectors, mean_over_processes
from g2r_lightning.student.text import StudentText

CHECKPOINT_KEY = "g2r_student"


class RetrievalStudent(FusedClipping):
    """Train a bi-encoder or poly-encoder with the G2R loss.

    Args:
        encoder: the pure model.
        text: how its texts become tokens.
        loss: weights and temperature of the G2R loss.
        optimizer: fused AdamW at 5e-5 unless told.
        schedule: of the learning rate.
    """

    def __init__(
        self,
        encoder: StudentEncoder,
        text: StudentText | None = None,
        loss: G2RLoss | None = None,
        optimizer: OptimizerCallable | None = None,
        schedule: Schedule = Schedule(),
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.text = (text or StudentText()).bind(encoder.name_or_path)
        check_lengths(self.text, position_limit(encoder.response_tower.model.config))
        self.loss = loss or G2RLoss()
        self._build_optimizer = optimizer or (lambda parameters: AdamW(parameters, lr=5e-5, fused=True))
        self.schedule = schedule

    def training_step(self, batch: CandidateBatch, batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """Return this process's part of the loss of one step, and log every term of the whole, also those of weight 0.

        Raises:
            ConfigError: the loss asks for teacher scores and there are none.
            G2RError: the loss is not finite; names the examples whose scores are not, else those of the step.
        """
        if batch.teacher_scores is None and self.loss.alpha > 0:
            raise ConfigError(
                f"model.init_args.loss.init_args.alpha={self.loss.alpha} needs teacher scores, and the data has none: "
                "train on g2r_lightning.data.AugmentedDialogueDataModule with a store that `score` has filled, or set "
                "alpha to 0"
            )
        scores = self.scores(batch)
        counts: tuple[Tensor, ...] = ()
        if batch.places is not None:
            counts = counts_a_process(batch.positives, batch.candidates, scores.dtype)
        out = self.loss(scores, batch.positives, batch.negatives, batch.teacher_scores, batch.candidates, *counts)
        terms = {"loss": out.total, "cross_entropy": out.cross_entropy}
        if batch.teacher_scores is not None:
            terms |= {"score_transfer": out.score_transfer, "kl": out.kl, "teacher_entropy": out.teacher_entropy}
        if batch.places is not None:
            terms = mean_over_processes(terms)
        if not torch.isfinite(terms["loss"]):  # the same on every process: one alone would leave the others waiting
            loss = terms["loss"].item()
            bad = ~torch.isfinite(scores.detach()).all(dim=1)
            guilty = (
                f"the scores of {self._names(batch.examples[bad])} are not finite"
                if bool(bad.any())
                else (f"the examples of the step are {self._names(batch.examples)}")
            )
            raise G2RError(
                f"the loss is {loss} in step {self.global_step}: {guilty}; lower the learning rate, set "
                "trainer.gradient_clip_val, or train in float32 (--trainer.precision=32-true)"
            )
        for name, value in terms.items():
            self.log(f"train/{name}", value, prog_bar=name == "loss", batch_size=len(batch.examples))
        return out.total

    def scores(self, batch: CandidateBatch) -> Tensor:
        """Return (B, U) float scores of this process's contexts with the step's responses, whoever encoded them."""
        contexts = self.encoder.encode_contexts(batch.context_ids, batch.context_mask)
        responses = self.encoder.encode_responses(batch.response_ids, batch.response_mask)
        if batch.places is not None:
            responses = gather_vectors(responses)[batch.places]
        with torch.autocast(contexts.device.type, enabled=False):  # towers may run in bf16, scores never do
            return self.encoder.score(contexts, responses)

    def validation_step(self, batch: EvaluationBatch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:  # noqa: ARG002
        """Return the encoded contexts, which the evaluation callback ranks."""
        contexts: Tensor = self.encoder.encode_contexts(batch.context_ids, batch.context_mask)
        return contexts

    def test_step(self, batch: EvaluationBatch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:  # noqa: ARG002
        """Return the encoded contexts, which the evaluation callback ranks."""
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: EvaluationBatch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:  # noqa: ARG002
        """Return the encoded contexts, which the prediction callback answers."""
        return self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        """Build optimiser and schedule.

        Raises:
            ConfigError: the optimiser refuses its settings.
        """
        try:
            optimizer = self._build_optimizer(self.parameters())
        except (TypeError, ValueError) as error:
            raise ConfigError(f"model.init_args.optimizer: {error}") from error
        steps = int(self.trainer.estimated_stepping_batches)
        return self.schedule.configure(optimizer, steps, self._steps_between_validations())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put what the weights were fitted for beside them."""
        checkpoint[CHECKPOINT_KEY] = self.describe()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another kind of student.

        Raises:
            ConfigError: names every key in which checkpoint and configuration disagree.
        """
        fitted = checkpoint.get(CHECKPOINT_KEY)
        if fitted is None:
            raise ConfigError("this checkpoint holds no student of g2r_lightning; fit one, or name another --ckpt_path")
        mine = self.describe()
        clashes = [
            f"{setting_name(part, key)}: the checkpoint has {fitted[part].get(key)!r}, the configuration {value!r}"
            for part in mine
            for key, value in mine[part].items()
            if fitted[part].get(key) != value
        ] or other_weights(checkpoint["state_dict"], self.state_dict())
        if clashes:
            raise ConfigError(
                "checkpoint and configuration disagree; use the run's own config.yaml, or set\n  "
                + "\n  ".join(clashes)
            )

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return the settings that change what a score means."""
        return {"encoder": self.encoder.describe(), "text": self.text.settings()}

    def _steps_between_validations(self) -> int | None:
        """Return the batches between two validations where Lightning counts them within each epoch."""
        every = self.trainer.val_check_batch
        return every if isinstance(every, int) and self.trainer.check_val_every_n_epoch == 1 else None

    def _names(self, examples: Tensor) -> str:
        dataset = getattr(getattr(self.trainer, "datamodule", None), "training_set", None)
        if dataset is None:
            return str(examples.tolist())
        return ", ".join(dataset.ids[i] for i in examples.tolist()[:5]) + (" ..." if len(examples) > 5 else "")


def setting_name(part: str, key: str) -> str:
    """Return the configuration key of a setting of the encoder or the text."""
    return f"model.init_args.{part}." + ("class_path" if key == "class" else f"init_args.{key}")


def check_lengths(text: StudentText, limit: int | None) -> None:
    """Refuse texts longer than the encoder's positions reach.

    Args:
        text: with the longest context and response.
        limit: how many tokens the encoder reads; ``None`` where it knows no limit.

    Raises:
        ConfigError: names the setting and both numbers.
    """
    for name in ("max_context_tokens", "max_response_tokens"):
        if limit is not None and getattr(text, name) > limit:
            raise ConfigError(
                f"{setting_name('text', name)}={getattr(text, name)}: this encoder reads at most {limit} tokens"
            )


def other_weights(there: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> list[str]:
    """Return one line about the first tensor that one of two students lacks or has in another shape."""
    for name in sorted({*there, *here}):
        one, other = (tuple(weights[name].shape) if name in weights else None for weights in (there, here))
        if one != other:
            return [f"{setting_name('encoder', 'name_or_path')}: {name} is {one} in the checkpoint, {other} here"]
    return []
