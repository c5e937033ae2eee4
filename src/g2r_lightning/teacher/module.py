"""Fine-tune a teacher on dialogues: token cross-entropy of the response given the context, nothing more.

The teacher is an object of the configuration; this module gives it an optimiser, measures perplexity and hits@1/N by
likelihood on held-out dialogues, and leaves a plain Hugging Face folder in ``<default_root_dir>/teacher``, which
``generate`` and ``score`` load by path: the best by validation perplexity, or the last where nothing is validated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning import Callback
from torch import Tensor

from g2r_lightning.data.evaluation_set import CandidateList
from g2r_lightning.dialogue.types import Example
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.metrics import RetrievalMetrics
from g2r_lightning.metrics.ranking import TooFewTextsError
from g2r_lightning.optimisation import FusedClipping
from g2r_lightning.teacher.adapters import LoraSettings, add_adapters, is_adapter, merged_weights
from g2r_lightning.teacher.base import Teacher
from g2r_lightning.teacher.batching import IGNORED, token_log_likelihoods
from g2r_lightning.teacher.encoder_decoder import EncoderDecoderTeacher
from g2r_lightning.teacher.exporting import TeacherExport
from g2r_lightning.teacher.lengths import padding_share, token_lengths
from g2r_lightning.teacher.perplexity import TokenPerplexity
from g2r_lightning.teacher.ranking import likelihood_ranks

Batch = dict[str, Tensor]
TOGETHER = "all"
EXAMPLES = "examples"
"""Key of a training batch: (B,) int64, which training examples it holds; the teacher does not read it."""
IDS = "ids"
"""Key of an evaluation batch: the B ids of its examples; the teacher does not read them either."""
TOLD = 5  # examples that an error names


class TeacherModule(FusedClipping):
    """The Lightning shell of a :class:`Teacher`.

    Args:
        teacher: what is fine-tuned; loaded when training or evaluation sets up.
        learning_rate: the highest rate of AdamW.
        weight_decay: decoupled decay of matrices; biases and normalisation weights are spared.
        warmup_steps: optimiser steps over which the rate rises from 0.
        schedule: the rate after warm-up: ``constant``, or ``linear`` or ``cosine`` down to 0 at the last step.
        label_smoothing: share of each target spread over the vocabulary, 0 to 1; perplexity is measured without.
        export: write the folder ``<default_root_dir>/teacher`` while fitting.
        ranked_examples: how many examples of each evaluation set are ranked by likelihood, each response among the
            others of its candidate list (``data.init_args.choices``); chosen by their ids, so the same in every run.
            0 ranks none. It takes as long as the perplexity of that many times 20 examples, and again for MI.
        ranked_by_mi: rank by mutual information too, with the empty context as the prior.
        gradient_checkpointing: keep no activations within a layer, and compute them again backwards: less memory,
            a third more time, the same gradients.
        lora: train adapters instead of the weights; needs ``pip install 'g2r-lightning[lora]'``.

    Raises:
        ConfigError: ``lora`` is asked for and not to be had.
    """

    def __init__(
        self,
        teacher: Teacher,
        learning_rate: float = 5e-5,
        weight_decay: float = 0.01,
        warmup_steps: int = 100,
        schedule: Literal["constant", "linear", "cosine"] = "linear",
        label_smoothing: float = 0.0,
        export: bool = True,
        ranked_examples: int = 200,
        ranked_by_mi: bool = True,
        gradient_checkpointing: bool = False,
        lora: LoraSettings | None = None,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = (
            True  # a set may be smaller than the processes are many
        )
        if ranked_examples < 0:
            raise ConfigError(f"model.init_args.ranked_examples={ranked_examples}: 0 (none) or more")
        for name, value in (("learning_rate", learning_rate), ("weight_decay", weight_decay)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"model.init_args.{name}={value}: 0 or more")
        if warmup_steps < 0:
            raise ConfigError(f"model.init_args.warmup_steps={warmup_steps}: 0 (none) or more")
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"model.init_args.label_smoothing={label_smoothing}: from 0 to below 1")
        if lora is not None and getattr(teacher, "encoder_name_or_path", None) is not None:
            raise ConfigError(
                "model.init_args.lora adapts a model that can write already; cross-attention between two joined halves "
                "is drawn at random, and has to be trained itself: leave lora out, or give a whole model"
            )
        self.teacher = teacher
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_steps = warmup_steps
        self.schedule = schedule
        self.label_smoothing = label_smoothing
        self.export_while_fitting = export
        self.ranked_examples = ranked_examples
        self.ranked_by_mi = ranked_by_mi
        self.gradient_checkpointing = gradient_checkpointing
        self.lora = lora
        self._candidate_lists: dict[str, dict[str, list[CandidateList]]] = {}
        self._perplexities: dict[str, TokenPerplexity] = {}
        self._strange: list[str] = []
        self._clock: tuple[float, int] | None = None

    # -- set-up ----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Draw the candidate lists, so that a set too small for them is refused before any training.

        Raises:
            G2RError: a set has too few distinct responses.
        """
        of = "test" if stage == "test" else "validation"
        draw = getattr(getattr(self.trainer, "datamodule", None), "candidate_lists", None)
        if self.ranked_examples and draw is not None and of not in self._candidate_lists:
            try:
                self._candidate_lists[of] = draw(of, self.ranked_examples)
            except TooFewTextsError as error:
                raise G2RError(f"{error}; or rank nothing: --model.ranked_examples=0") from error

    def configure_model(self) -> None:
        """Load the teacher, with adapters where asked for, and register its weights with Lightning.

        Raises:
            ConfigError: the model knows no gradient checkpointing, or the adapters do not fit it.
        """
        if hasattr(self, "model"):
            return
        if self.teacher.dtype == "auto":  # small steps are lost in bfloat16 weights; mixed precision is the trainer's
            self.teacher.dtype = "float32"
        model = self.teacher.model
        if self.lora is not None:
            add_adapters(model, self.lora)
        if self.gradient_checkpointing:
            recompute_activations(model)
        self.model = model
        self.model.train()  # transformers loads in evaluation mode, and Lightning keeps the mode that it finds

    def configure_callbacks(self) -> Sequence[Callback]:
        """Add the export, unless it is switched off."""
        return [TeacherExport()] if self.export_while_fitting else []

    def configure_optimizers(self) -> Any:
        """Return AdamW with warm-up and the chosen schedule, stepped every optimiser step."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, fused=True)
        factor = rate_factor(self.schedule, self.warmup_steps, self._total_steps())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _total_steps(self) -> int:
        if self.schedule == "constant":
            return self.warmup_steps
        total = self.trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise ConfigError(f"schedule={self.schedule} needs an end: set trainer.max_steps or trainer.max_epochs")
        return int(total)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Return a padded batch; see :meth:`Teacher.batch`."""
        return self.teacher.batch(examples)

    def lengths(self, examples: Sequence[Example]) -> npt.NDArray[np.int64]:
        """Return what batches are grouped by: context and response where they are padded apart, else their sum."""
        both = token_lengths(self.teacher.template, examples)
        return both if isinstance(self.teacher, EncoderDecoderTeacher) else both.sum(axis=1)

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the adapters alone, where only they are trained: the model itself is loaded by its name."""
        if self.lora is not None:
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {name: value for name, value in state.items() if is_adapter(name)}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take the weights of a checkpoint, the adapters alone where only they are trained.

        Raises:
            G2RError: they are not those of this model's adapters.
        """
        if self.lora is None:
            return super().load_state_dict(state_dict, strict, assign)
        clashes = {name for name in self.state_dict() if is_adapter(name)} ^ set(state_dict)
        if strict and clashes:
            raise G2RError(f"the checkpoint holds other adapters than model.init_args.lora asks for: {min(clashes)}")
        return super().load_state_dict(state_dict, False, assign)

    # -- training --------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """Return the cross-entropy of the response tokens, their mean over the batch, in nats.

        Raises:
            G2RError: it is not finite; names the examples whose logits are not, else those of the step.
        """
        batch = dict(batch)
        examples = batch.pop(EXAMPLES, None)
        logits, labels = self.teacher.logits(batch).float(), batch["labels"]
        loss = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, label_smoothing=self.label_smoothing
        )
        shown = loss.detach().clone()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(shown)
        if not torch.isfinite(shown):  # the same on every process: one alone would leave the others waiting
            raise G2RError(self._not_finite(float(shown), logits, examples))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(labels))
        self.log("train/padding", padding_share(batch), batch_size=len(labels))
        self._log_speed(int((labels != IGNORED).sum()))
        return loss

    def _not_finite(self, loss: float, logits: Tensor, examples: Tensor | None) -> str:
        """Return what is said of a loss that is no number, with the ids of the examples where they are known."""
        bad = ~torch.isfinite(logits.detach()).flatten(1).all(dim=1)
        rows = bad if bool(bad.any()) else ~bad
        known = getattr(getattr(self.trainer, "datamodule", None), "train_examples", None)
        named = [known[i].id for i in examples[rows].tolist()[:TOLD]] if examples is not None and known else ["unknown"]
        return (
            f"the loss is {loss} in step {self.global_step}, that of the examples {', '.join(named)}: lower "
            "model.init_args.learning_rate, or train in float32 (--trainer.precision=32-true)"
        )

    def _log_speed(self, tokens: int) -> None:
        """Log response tokens trained per second, on this device, from step to step."""
        now = time.perf_counter()
        if self._clock is not None:
            before, done = self._clock
            self.log("train/tokens_per_second", done / (now - before))
        self._clock = (now, tokens)

    # -- evaluation ------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Start counting anew."""
        self._clock = None
        sanity = self.trainer.sanity_checking
        self._begin("validation", len(self.trainer.num_sanity_val_batches if sanity else self.trainer.num_val_batches))

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ARG002
        """Add a batch to the perplexity of its set."""
        self._add(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the figures of each set and of all together.

        These are ``validation/<set>/perplexity``, ``validation/perplexity`` over the tokens of all sets, and for
        ranked examples ``validation/<set>/hits_at_1_of_20_ll`` and ``..._mi``, ``mrr_...`` likewise, with ``all`` for
        the sets together.
        """
        self._finish("validation")

    def on_test_epoch_start(self) -> None:
        """Start counting anew."""
        self._begin("test", len(self.trainer.num_test_batches))

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ARG002
        """Add a batch to the perplexity of its set."""
        self._add(batch, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Log the same figures under ``test/``."""
        self._finish("test")

    def _begin(self, stage: str, count: int) -> None:
        """Make a counter for every set, in every process: one that sees nothing of a set still adds up with the rest.

        Sets are named by the data module (``validation_names``), else by their numbers.
        """
        names: Sequence[str] = getattr(getattr(self.trainer, "datamodule", None), f"{stage}_names", ())
        names = [*names, *map(str, range(len(names), count))]
        self._strange = []
        self._perplexities = {name: TokenPerplexity().to(self.device) for name in names[:count]}
        for metric in self._perplexities.values():  # torchmetrics warns of one that has seen nothing
            metric.update(torch.zeros(0, device=self.device), torch.zeros(0, dtype=torch.int64, device=self.device))

    def _add(self, batch: Batch, dataloader_idx: int) -> None:
        inputs: dict[str, Any] = dict(batch)
        names: Sequence[str] = inputs.pop(IDS, None) or ["unknown"] * len(batch["labels"])
        metric = list(self._perplexities.values())[dataloader_idx]
        likelihoods, tokens = token_log_likelihoods(self.teacher.logits(inputs), batch["labels"])
        metric.update(likelihoods, tokens)
        if len(self._strange) < TOLD and not bool(torch.isfinite(likelihoods).all()):
            rows = (~torch.isfinite(likelihoods)).nonzero().flatten().tolist()
            self._strange = [*self._strange, *(names[row] for row in rows)][:TOLD]

    def _finish(self, stage: str) -> None:
        """Log the figures of all sets.

        Raises:
            G2RError: the perplexity is not finite, on every process alike; each names the examples that it met.
        """
        whole = TokenPerplexity().to(self.device)
        figures: dict[str, Any] = {}
        for name, metric in self._perplexities.items():
            figures[f"{name}/perplexity"] = metric.compute().float()
            whole.update(metric.log_likelihood, metric.tokens)
        perplexity = whole.compute().float()
        if not bool(torch.isfinite(perplexity)):
            met = ", ".join(self._strange) or "of no example that this process saw"
            raise G2RError(
                f"{stage}/perplexity is {float(perplexity)}; the likelihood of the response is not finite: {met}. Take "
                "another checkpoint, lower model.init_args.learning_rate, or use float32 (--trainer.precision=32-true)"
            )
        lists = self._candidate_lists.get(stage)
        if lists and not self.trainer.sanity_checking:
            figures |= self._rank(lists)
        # Every process has the same figures already; Lightning warns where it is not told to add up what it is given.
        self.log_dict({f"{stage}/{key}": value for key, value in figures.items()}, sync_dist=True)
        self.log(f"{stage}/perplexity", perplexity, prog_bar=True, sync_dist=True)

    def _rank(self, lists: dict[str, list[CandidateList]]) -> dict[str, float]:
        """Return hits@1/N and MRR of each set and of all, each process scoring its share of the lists."""
        longest = max((len(one.texts) for found in lists.values() for one in found), default=1)
        scores = ("ll", "mi") if self.ranked_by_mi else ("ll",)
        counted = {
            (name, score): RetrievalMetrics(max_candidates=longest).to(self.device)
            for name in (*lists, TOGETHER)
            for score in scores
        }
        for name, found in lists.items():
            share = found[self.trainer.global_rank :: self.trainer.world_size]
            sizes = torch.tensor([len(one.texts) for one in share], dtype=torch.int64, device=self.device)
            with self.trainer.precision_plugin.forward_context():
                ranks = likelihood_ranks(self.teacher, share, self.ranked_by_mi)
            for score in scores:
                counted[name, score].update(ranks[score].to(self.device), sizes)
                counted[TOGETHER, score].update(ranks[score].to(self.device), sizes)
        return {
            f"{name}/{key}_{score}": float(value)
            for (name, score), metric in counted.items()
            for key, value in metric.compute().items()
            if key.startswith(("hits", "mrr"))
        } | {
            **{f"{name}/ranked_examples": float(len(found)) for name, found in lists.items()},
            f"{TOGETHER}/ranked_examples": float(sum(map(len, lists.values()))),
        }

    # -- export ----------------------------------------------------------------------------------------------------

    def export(self, folder: str | Path) -> None:
        """Write the teacher as a plain Hugging Face folder, adapters merged, which ``name_or_path`` loads."""
        self.teacher.save(folder, None if self.lora is None else merged_weights(self.model))

    def exported(self, folder: str | Path) -> TeacherModule:
        """Return a module that evaluates what :meth:`export` wrote, as this one evaluates itself."""
        teacher = type(self.teacher)(
            str(folder), dtype=self.teacher.dtype, tokens_per_forward=self.teacher.tokens_per_forward
        )
        return TeacherModule(
            teacher, export=False, ranked_examples=self.ranked_examples, ranked_by_mi=self.ranked_by_mi
        )


def recompute_activations(model: Any) -> None:
    """Let a transformers model keep no activations within its layers while it is trained.

    Raises:
        ConfigError: it cannot.
    """
    try:
        if hasattr(model, "activation_checkpointing_enable"):  # the name from transformers 5.2x on
            model.activation_checkpointing_enable()
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as error:
        raise ConfigError(f"model.init_args.gradient_checkpointing=true: {error}") from error


def rate_factor(schedule: str, warmup_steps: int, total_steps: int) -> Callable[[int], float]:
    """Return step -> factor of the highest learning rate.

    Args:
        schedule: ``constant``, ``linear`` or ``cosine``.
        warmup_steps: steps of the rise from 0 to 1; step ``warmup_steps`` has factor 1.
        total_steps: the step at which ``linear`` and ``cosine`` reach 0.

    >>> [rate_factor("linear", 2, 6)(step) for step in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    def factor(step: int) -> float:
        """Return the factor of a step, from 0 to 1."""
        if step < warmup_steps:
            return step / warmup_steps
        done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        if schedule == "linear":
            return 1.0 - done
        return (1.0 + math.cos(math.pi * done)) / 2 if schedule == "cosine" else 1.0

    return factor
