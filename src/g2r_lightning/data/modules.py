"""The LightningDataModules: original dialogues, dialogues with a teacher's candidates, and a teacher's own lessons.

All three read the same ``data`` section; they differ in what a training step holds. What a text's tokens are is the
model's business: a module asks the trainer's model for its ``text`` (or its ``teacher``), or takes the one that
:meth:`DialogueDataModule.prepare_for` is given outside a trainer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from g2r_lightning.data.corpus import (
    drop_leaks,
    examples_of,
    read_dialogues,
    read_response_file,
    some_examples,
    split_share,
)
from g2r_lightning.data.evaluation_set import ContextSet, EvaluationSet
from g2r_lightning.data.responses import ResponseSet
from g2r_lightning.data.samplers import ResumableLoader, StepSampler
from g2r_lightning.data.tokens import TextEncoder, context_table, response_table
from g2r_lightning.data.training_set import NegativeSampling, ScoredCandidate, TrainingSet
from g2r_lightning.dialogue import Dialogue, Example
from g2r_lightning.dialogue.readers.base import DialogueReader
from g2r_lightning.errors import ConfigError
from g2r_lightning.metrics.ranking import TooFewTextsError

log = logging.getLogger(__name__)
HELD_OUT = "held_out"


class DialogueDataModule(LightningDataModule):
    """Original dialogues: every response is the only candidate of its context.

    Args:
        train: readers of the training dialogues.
        validation: name -> reader of the dialogues that choose the checkpoint.
        test: name -> reader of the dialogues that are reported.
        validation_share: part of the training dialogues (0 to 1) set aside as the validation set ``held_out``.
        test_share: the same for a test set ``held_out``.
        train_share: part of the training dialogues (above 0, to 1) that is used, chosen by their text: the same ones in
            every run, and a smaller share is part of a larger.
        drop_leaks: drop training dialogues that stand in an evaluation set too (case and punctuation apart).
        response_files: an approved response set, one reply a line, searched instead of the training responses.
        negatives: where a step's negatives come from.
        max_candidates: most candidates of a context in one step (Kim et al. 2021: 10).
        batch_size: contexts a step and process (Kim et al. 2021: 48).
        evaluation_batch_size: contexts a batch in evaluation; changes no result.
        evaluation_examples: most examples of an evaluation set that are judged, those whose ids have the lowest hashes:
            the same in every run and from all over the file, of which ``trainer.limit_test_batches`` takes the head.
            Their candidate lists are drawn from the whole set; ``null`` judges all.
        choices: N of the seeded candidate lists of hits@1/N.
        length_grouping: batches of contexts of similar length; less padding, the same examples.
        num_workers: processes that make batches; changes no result.
        seed: of shuffles and of draws of candidates and negatives.
        evaluation_seed: of candidate lists and of dialogues set aside; keep it, so that runs are tested alike.
        cache_dir: where tokens are kept, by content; safe to delete.
    """

    FEWEST_JUDGED: ClassVar[int] = 1

    def __init__(
        self,
        train: list[DialogueReader],
        validation: dict[str, DialogueReader] | None = None,
        test: dict[str, DialogueReader] | None = None,
        validation_share: float = 0.0,
        test_share: float = 0.0,
        drop_leaks: bool = True,
        response_files: list[str] | None = None,
        negatives: NegativeSampling = NegativeSampling(),
        max_candidates: int = 10,
        batch_size: int = 48,
        evaluation_batch_size: int = 64,
        choices: int = 20,
        length_grouping: bool = True,
        num_workers: int = 0,
        seed: int = 0,
        evaluation_seed: int = 0,
        cache_dir: str = ".cache/g2r_lightning",
        train_share: float = 1.0,
        evaluation_examples: int | None = None,
    ) -> None:
        super().__init__()
        limits = {
            "batch_size": (batch_size, 1),
            "evaluation_batch_size": (evaluation_batch_size, 1),
            "max_candidates": (max_candidates, 1),
            "choices": (choices, 2),
            "num_workers": (num_workers, 0),
            "evaluation_examples": (
                self.FEWEST_JUDGED if evaluation_examples is None else evaluation_examples,
                self.FEWEST_JUDGED,
            ),
        }
        for name, (value, least) in limits.items():
            if value < least:
                raise ValueError(f"data.init_args.{name}={value}: at least {least}")
        if not 0 <= seed < 2**63:
            raise ValueError(f"data.init_args.seed={seed}: a whole number from 0 to {2**63 - 1}")
        if not (0 <= validation_share < 1 and 0 <= test_share < 1 and validation_share + test_share < 1):
            raise ValueError("data.validation_share and data.test_share must leave something to train on")
        if not 0 < train_share <= 1:
            raise ValueError(f"data.init_args.train_share={train_share}: above 0, at most 1")
        self.train_share = train_share
        self.evaluation_examples = evaluation_examples
        self.train_readers = train
        self.readers = {"validation": validation or {}, "test": test or {}}
        self.shares = {"validation": validation_share, "test": test_share}
        self.drop_leaks = drop_leaks
        self.response_files = response_files or []
        self.negatives = negatives
        self.max_candidates = max_candidates
        self.batch_size = batch_size
        self.evaluation_batch_size = evaluation_batch_size
        self.choices = choices
        self.length_grouping = length_grouping
        self.num_workers = num_workers
        self.seed = seed
        self.evaluation_seed = evaluation_seed
        self.cache_dir = Path(cache_dir)
        self.contexts_to_answer: list[Example] = []
        self.dropped_leaks = 0
        self._text: TextEncoder | None = None
        self._train_loader: ResumableLoader | None = None
        self._position: dict[str, Any] | None = None

    @cached_property
    def dialogues(self) -> dict[str, dict[str, list[Dialogue]]]:
        """``train``, ``validation`` and ``test``, each name -> dialogues; splits and leaks taken care of."""
        found = {
            stage: {name: read_dialogues([reader]) for name, reader in readers.items()}
            for stage, readers in self.readers.items()
        }
        train = read_dialogues(self.train_readers)
        if self.drop_leaks:
            held_out = (d for sets in found.values() for one in sets.values() for d in one)
            train, self.dropped_leaks = drop_leaks(train, held_out)
            if self.dropped_leaks:
                log.warning("dropped %d training dialogues that stand in an evaluation set", self.dropped_leaks)
        for stage, share in self.shares.items():
            if share:
                whole = len(train)
                train, found[stage][HELD_OUT] = split_share(train, share, f"{stage}:{self.evaluation_seed}")
                if not found[stage][HELD_OUT]:
                    raise ConfigError(
                        f"data.init_args.{stage}_share={share} sets none of {whole} dialogues aside; raise it, or set "
                        "it to 0 to go without such a set"
                    )
        if self.train_share < 1:
            _, train = split_share(train, self.train_share, "train")
        if not train:
            raise ConfigError(
                "no training dialogue is left: check data.init_args.train, its shares (train_share, validation_share, "
                "test_share) and what was dropped"
            )
        return {"train": {"train": train}, **found}

    @cached_property
    def train_examples(self) -> list[Example]:
        """Every (context, response) of the training dialogues, in the readers' order."""
        return examples_of(self.dialogues["train"]["train"])

    @cached_property
    def train_candidates(self) -> Sequence[Sequence[ScoredCandidate]]:
        """The candidates of every training example, the original first."""
        return [[ScoredCandidate(example.response, "original")] for example in self.train_examples]

    @cached_property
    def training_responses(self) -> ResponseSet:
        """Every distinct candidate of the training set: what random negatives are drawn from."""
        responses = ResponseSet(self.text.key)
        for candidates in self.train_candidates:
            for candidate in candidates:
                responses.add(candidate.response, candidate.source)
        return responses

    @cached_property
    def response_set(self) -> ResponseSet:
        """What the retriever answers with: the approved files where given, else the training responses."""
        if not self.response_files:
            return self.searched_training_responses()
        responses = ResponseSet(self.text.key)
        for path in self.response_files:
            responses.extend(read_response_file(path), "approved")
        return responses

    def searched_training_responses(self) -> ResponseSet:
        """Return the part of the training responses that may be answered with; all of them here."""
        return self.training_responses

    def negative_pool(self) -> npt.NDArray[np.int64] | None:
        """Return the rows of the training responses that may be negatives; ``None`` for all, as here."""
        return None

    @property
    def validation_names(self) -> list[str]:
        """Names of the validation sets, in the order of their loaders."""
        return list(self.dialogues["validation"])

    @property
    def test_names(self) -> list[str]:
        """Names of the test sets, in the order of their loaders."""
        return list(self.dialogues["test"])

    @property
    def text(self) -> TextEncoder:
        """The model's way with texts."""
        if self._text is None:
            module = getattr(self.trainer, "lightning_module", None)
            self._text = getattr(module, "text", None)
        if self._text is None:
            raise ConfigError("this data module needs a student model (g2r_lightning.student.RetrievalStudent)")
        return self._text

    def prepare_for(self, text: TextEncoder) -> None:
        """Use a student's way with texts outside a trainer."""
        self._text = text

    @cached_property
    def training_set(self) -> TrainingSet:
        """The training set, tokenised."""
        responses = self.training_responses
        return TrainingSet(
            self.train_examples,
            self.train_candidates,
            responses,
            context_table(self.text, self.train_examples, self.cache_dir),
            response_table(self.text, responses.texts, self.cache_dir),
            self.text.pad_id,
            self.negatives,
            self.max_candidates,
            self.seed,
            self.negative_pool(),
        )

    def evaluation_sets(self, stage: str) -> list[EvaluationSet]:
        """Return the named sets of ``validation`` or ``test``, tokenised."""
        if stage not in self._evaluation_sets:
            self._evaluation_sets[stage] = [
                self._evaluation_set(name, examples_of(dialogues)) for name, dialogues in self.dialogues[stage].items()
            ]
        return self._evaluation_sets[stage]

    @cached_property
    def _evaluation_sets(self) -> dict[str, list[EvaluationSet]]:
        return {}

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader of whole training steps."""
        dataset = self.training_set
        lengths = np.array([len(dataset.context_tokens[i]) for i in range(len(dataset))])
        return self.training_loader(dataset, lengths, drop_short=False)

    def training_loader(
        self, dataset: Dataset[Any], lengths: npt.NDArray[np.int64], drop_short: bool = True
    ) -> ResumableLoader:
        """Return a loader over the training examples that begins where a checkpoint stopped, if one was loaded.

        Args:
            dataset: makes the batch of a step key.
            lengths: (number of examples,) size of each, by which ``length_grouping`` batches them.
            drop_short: see :class:`StepSampler`; false for a dataset that gives work to a process without an example.
        """
        grouped = lengths if self.length_grouping else None
        sampler = StepSampler(len(lengths), self.batch_size, self.seed, *self._share(), grouped, drop_short)
        if sampler.global_batch == 1 and self.negatives.random == 0:
            raise ConfigError(
                "data.init_args.batch_size=1 with negatives.in_batch alone: a context has nobody else's candidates to "
                "beat; raise batch_size, or negatives.random"
            )
        self._train_loader = ResumableLoader(dataset, sampler, self.num_workers)
        if self._position is not None:
            self._train_loader.load_state_dict(self._position)
            self._position = None
        return self._train_loader

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the training loader, for a checkpoint.

        Lightning 2.6 asks the loader itself too, but restores it too late where ``estimated_stepping_batches`` has made
        the loader before the loops are restored, as every schedule over a known number of steps does.
        """
        return {} if self._train_loader is None else self._train_loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next training loader go on behind the steps that were taken."""
        self._position = state_dict

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Return one loader a validation set."""
        return [self._loader(dataset) for dataset in self.evaluation_sets("validation")]

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """Return one loader a test set."""
        if not self.evaluation_sets("test"):
            raise ConfigError("no test set: name one under data.init_args.test, or set data.init_args.test_share")
        return [self._loader(dataset) for dataset in self.evaluation_sets("test")]

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the loader of the contexts that want answers (``contexts_to_answer``)."""
        return self._loader(self.context_set)

    @cached_property
    def context_set(self) -> ContextSet:
        """The contexts that want answers, tokenised."""
        tokens = context_table(self.text, self.contexts_to_answer, self.cache_dir)
        size = self.evaluation_batch_size
        return ContextSet("contexts", self.contexts_to_answer, tokens, self.text.pad_id, size, *self._share())

    def judged(self, examples: Sequence[Example]) -> list[Example]:
        """Return those of an evaluation set's examples that are judged: all, or ``evaluation_examples`` of them."""
        return some_examples(examples, self.evaluation_examples, self.evaluation_seed)

    def _evaluation_set(self, name: str, examples: list[Example]) -> EvaluationSet:
        judged = self.judged(examples)
        tokens = context_table(self.text, judged, self.cache_dir)
        responses = self.response_set
        try:
            return EvaluationSet(
                name, judged, tokens, self.text.pad_id, responses, self.evaluation_batch_size, self.evaluation_seed,
                self.choices, *self._share(), whole=examples,
            )  # fmt: skip
        except TooFewTextsError as error:
            shares = " (raise validation_share or test_share)" if name == HELD_OUT else ""
            raise ConfigError(
                f"set '{name}' is too small: {error}. Give it more dialogues{shares}, or choose among N < "
                f"{self.choices} with --data.choices=N, after which figures, and the monitor of ModelCheckpoint, are "
                "named hits_at_1_of_N"
            ) from error

    def _loader(self, dataset: ContextSet) -> DataLoader[Any]:
        return DataLoader(dataset, batch_size=None, num_workers=self.num_workers)

    def _share(self) -> tuple[int, int]:
        """Return this process's rank and the number of processes."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size
