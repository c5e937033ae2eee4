"""Hard negatives: responses that the student itself ranks high and that nobody gave, found anew between epochs.

Random negatives are soon told apart, and teach nothing more. So at the start of an epoch the student (Xiong et al.
2021, ANCE) encodes every training response and context, and each context's negatives are drawn from a window of the
ranks that it gives. Some of what ranks high is a good reply that nobody happened to give, a *false negative*. Three
things keep those out:

1. the window begins below the first ranks (``first_rank``), where they are thickest;
2. the student's score must be lower than that of the context's best own candidate by ``margin``;
3. a guard: a text whose words are nearly those of an own candidate is dropped (``max_overlap``), and where a teacher is
   given, one that it finds as likely as the human response, up to ``teacher_margin`` nats a token.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from g2r_lightning.callbacks.evaluation import encode_texts, parts
from g2r_lightning.data.modules import DialogueDataModule
from g2r_lightning.data.training_set import NONE, TrainingSet
from g2r_lightning.errors import ConfigError
from g2r_lightning.filters.words import words
from g2r_lightning.index import ResponseIndex, encode_rows
from g2r_lightning.progress import progress_bar
from g2r_lightning.student.module import RetrievalStudent
from g2r_lightning.teacher.base import Teacher

log = logging.getLogger(__name__)
Rows = npt.NDArray[np.int64]
CONTEXTS_AT_ONCE = 256
DRAW = 3


class HardNegatives(Callback):
    """Give every training context negatives of its own from the student's ranking, each ``every_n_epochs``.

    In a step they are negatives of all its contexts, as the random ones are, except where they are known candidates.

    Args:
        per_context: how many, at most; fewer where the guards leave fewer.
        first_rank: first rank of the window, one-based; own candidates have no rank.
        last_rank: last rank of the window.
        margin: how much lower than the best own candidate's score a negative's must be, in units of the score.
        max_overlap: largest share of common words (intersection over union, 0 to 1) with an own candidate; 1 asks for
            other texts only.
        teacher: finds false negatives by its likelihood; it is run on all that is drawn, which takes its time.
        teacher_margin: nats a token that a negative must lie below the human response.
        from_epoch: first epoch (zero-based) with hard negatives.
        every_n_epochs: how often they are found anew.
        seed: of the draws within the window.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(
        self,
        per_context: int = 4,
        first_rank: int = 10,
        last_rank: int = 100,
        margin: float = 0.0,
        max_overlap: float = 0.8,
        teacher: Teacher | None = None,
        teacher_margin: float = 0.5,
        from_epoch: int = 1,
        every_n_epochs: int = 1,
        seed: int = 0,
    ) -> None:
        if not 1 <= first_rank <= last_rank:
            raise ConfigError(f"HardNegatives: first_rank={first_rank}, last_rank={last_rank}: 1 <= first <= last")
        if not 1 <= per_context <= last_rank - first_rank + 1:
            raise ConfigError(f"HardNegatives: per_context={per_context}: from 1 to the width of the window of ranks")
        if not 0 < max_overlap <= 1:
            raise ConfigError(f"HardNegatives: max_overlap={max_overlap}: above 0, at most 1")
        if from_epoch < 0 or every_n_epochs < 1:
            raise ConfigError(
                f"HardNegatives: from_epoch={from_epoch}, every_n_epochs={every_n_epochs}: at least 0 and 1"
            )
        if not (math.isfinite(margin) and math.isfinite(teacher_margin)):
            raise ConfigError(f"HardNegatives: margin={margin}, teacher_margin={teacher_margin}: finite numbers")
        if seed < 0:
            raise ConfigError(f"HardNegatives: seed={seed}: must not be negative")
        self.per_context, self.first_rank, self.last_rank = per_context, first_rank, last_rank
        self.margin, self.max_overlap = margin, max_overlap
        self.teacher, self.teacher_margin = teacher, teacher_margin
        self.from_epoch, self.every_n_epochs = from_epoch, every_n_epochs
        self.seed = seed
        self._found: tuple[int, Tensor] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch's hard negatives, so that a resumed epoch goes on with the same."""
        return {} if self._found is None else {"epoch": self._found[0], "rows": self._found[1]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self._found = (int(state_dict["epoch"]), state_dict["rows"]) if state_dict else None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give a resumed epoch what it had."""
        if self._found is not None:
            parts(trainer, pl_module)[1].training_set.hard_negatives = self._found[1].numpy()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find hard negatives, where it is time."""
        epoch = trainer.current_epoch
        due = epoch >= self.from_epoch and (epoch - self.from_epoch) % self.every_n_epochs == 0
        if not due or (self._found is not None and self._found[0] == epoch):
            return
        student, data = parts(trainer, pl_module)
        rows = self.find(trainer, student, data)
        self._found = (epoch, torch.from_numpy(rows))
        data.training_set.hard_negatives = rows
        share = float((rows != NONE).mean())
        pl_module.log("train/hard_negatives_found", share, rank_zero_only=True)
        if share == 0:
            log.warning(
                "HardNegatives: epoch %d has none: no rank from first_rank=%d to last_rank=%d (of %d responses) is "
                "left by margin=%g, max_overlap=%g and the teacher, if there is one",
                epoch, self.first_rank, self.last_rank, len(data.training_responses), self.margin, self.max_overlap,
            )  # fmt: skip

    def find(self, trainer: Trainer, student: RetrievalStudent, data: DialogueDataModule) -> Rows:
        """Return (examples, per_context) int64 rows of the training responses, ``NONE`` where there are fewer.

        Each process works on a share of the contexts.
        """
        dataset, responses = data.training_set, data.training_responses
        vectors = encode_texts(trainer, student, data, responses.texts, progress=True)
        index = ResponseIndex(responses.texts, responses.sources, vectors.numpy())
        own = np.arange(trainer.global_rank, len(dataset), trainer.world_size)
        found = np.full((-(-len(dataset) // trainer.world_size), self.per_context), NONE, np.int64)
        hidden = not trainer.is_global_zero
        training = student.training
        student.eval()
        bar = progress_bar(total=len(own), desc="finding hard negatives", unit="context", disable=hidden, leave=False)
        with bar, torch.inference_mode(), trainer.precision_plugin.forward_context():
            for start in range(0, len(own), CONTEXTS_AT_ONCE):
                some = own[start : start + CONTEXTS_AT_ONCE]
                found[start : start + len(some)] = self._of(student, data, index, some, trainer.current_epoch)
                bar.update(len(some))
        student.train(training)
        if trainer.world_size == 1:
            return found
        gathered: Tensor = trainer.strategy.all_gather(torch.from_numpy(found).to(trainer.strategy.root_device))
        return gathered.cpu().transpose(0, 1).flatten(0, 1)[: len(dataset)].contiguous().numpy()

    def _of(
        self, student: RetrievalStudent, data: DialogueDataModule, index: ResponseIndex, examples: Rows, epoch: int
    ) -> Rows:
        """Return the hard negatives of some examples, (n, per_context)."""
        dataset, encoder = data.training_set, student.encoder
        tokens = [dataset.context_tokens[int(example)] for example in examples]
        contexts = encode_rows(encoder.encode_contexts, tokens, student.text.pad_id, student.device)
        known = [dataset.known(int(example)) for example in examples]
        scores, rows = index.search(contexts, self.last_rank + max(map(len, known)), encoder.score)
        best = best_own_scores(contexts, torch.from_numpy(index.embeddings), known, encoder.score)
        allowed = within_window(rows.numpy(), known, self.first_rank, self.last_rank)
        allowed &= scores.numpy() <= best[:, None] - self.margin
        allowed &= dataset.may_be_negative(rows.numpy())
        chosen = np.full((len(examples), self.per_context), NONE, np.int64)
        for place, example in enumerate(examples.tolist()):
            draw = np.random.default_rng([self.seed, DRAW, epoch, example])
            drawn = draw.permutation(rows[place].numpy()[allowed[place]])
            kept = self._guarded(data, dataset, index, example, drawn)
            chosen[place, : len(kept)] = kept
        return chosen

    def _guarded(
        self, data: DialogueDataModule, dataset: TrainingSet, index: ResponseIndex, example: int, drawn: Rows
    ) -> Rows:
        """Return the first ``per_context`` rows that no guard takes for a good reply, in order."""
        own = [index.texts[row] for row in dataset.known(example).tolist()]
        other = [max(overlap(index.texts[row], text) for text in own) < self.max_overlap for row in drawn.tolist()]
        drawn = drawn[np.array(other, bool)]
        if self.teacher is None:
            return drawn[: self.per_context]
        drawn = drawn[: 2 * self.per_context]  # a teacher is dear: it looks at twice as many as are wanted
        asked = data.train_examples[example]
        texts = [asked.response, *(index.texts[row] for row in drawn.tolist())]
        human, *others = [total / count for total, count in self.teacher.log_likelihood([asked], [texts])[0]]
        unlikely = np.array([other <= human - self.teacher_margin for other in others], bool)
        kept: Rows = drawn[unlikely][: self.per_context]
        return kept


def within_window(rows: Rows, known: list[Rows], first_rank: int, last_rank: int) -> npt.NDArray[np.bool_]:
    """Return which of the ranked responses lie within a window of ranks, own candidates apart.

    >>> within_window(np.array([[7, 3, 9, 5]]), [np.array([3])], 2, 3)
    array([[False, False,  True,  True]])

    Args:
        rows: (n, K) int64, responses of each context, best first.
        known: of each context, its own candidates, which have no rank.
        first_rank: one-based.
        last_rank: one-based, included.

    Returns:
        (n, K) bool.
    """
    other = np.stack([~np.isin(ranked, own) for ranked, own in zip(rows, known, strict=True)])
    ranks = other.cumsum(axis=1)
    return other & (ranks >= first_rank) & (ranks <= last_rank)


def best_own_scores(contexts: Tensor, responses: Tensor, known: list[Rows], score: Any) -> npt.NDArray[np.float64]:
    """Return (n,) the student's score of each context's best own candidate."""
    rows = np.unique(np.concatenate(known))
    scores = score(contexts, responses[torch.from_numpy(rows)]).double().numpy()
    own = [scores[place, np.searchsorted(rows, mine)].max() for place, mine in enumerate(known)]
    return np.array(own, np.float64)


def overlap(left: str, right: str) -> float:
    """Return the share of common words of two texts, intersection over union; 1 where neither has any.

    >>> overlap("I like tea.", "i like dogs")
    0.5
    """
    ours, theirs = set(words(left)), set(words(right))
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0
