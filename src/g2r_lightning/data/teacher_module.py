"""What a generative teacher is fine-tuned on: every (context, response) of the dialogues, as padded sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from g2r_lightning.data.corpus import examples_of
from g2r_lightning.data.evaluation_set import CandidateList, candidate_lists
from g2r_lightning.data.modules import DialogueDataModule
from g2r_lightning.data.samplers import ResumableLoader, StepKey, by_size
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError

Collate = Callable[[Sequence[Example]], dict[str, Any]]


class TeacherLike(Protocol):
    """What a teacher's module tells its data module."""

    def collate(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return a padded batch."""

    def lengths(self, examples: Sequence[Example]) -> npt.NDArray[np.int64]:
        """Return what batches are grouped by, (n,) or (n, 2); see :func:`g2r_lightning.data.samplers.by_size`."""


class Named:
    """A collate function that tells with a batch whose it is: the ``ids`` of its examples, which no device is sent.

    Args:
        collate: of the teacher module.
    """

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return the batch."""
        return {**self.collate(examples), "ids": [example.id for example in examples]}


class SequenceSet(Dataset[dict[str, Any]]):
    """Batches of examples as the teacher's own collate function makes them.

    Args:
        examples: in order.
        collate: of the teacher module.
    """

    def __init__(self, examples: list[Example], collate: Collate) -> None:
        self.examples = examples
        self.collate = collate

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: StepKey) -> dict[str, Any]:
        """Return the batch of one step, with the positions of its ``examples``."""
        batch = self.collate([self.examples[index] for index in key.local])
        return {**batch, "examples": torch.tensor(list(key.local), dtype=torch.int64)}


class TeacherDataModule(DialogueDataModule):
    """The same dialogues and settings as :class:`DialogueDataModule`, for ``fit`` of a teacher.

    Settings that concern a retriever alone (negatives, response files) are without effect here.
    """

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader of training steps, examples of similar length together."""
        dataset = SequenceSet(self.train_examples, self._module().collate)
        return self.training_loader(dataset, self._module().lengths(self.train_examples))

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Return one loader a validation set, examples of similar length together."""
        return [
            self._by_length(self.judged(examples_of(dialogues))) for dialogues in self.dialogues["validation"].values()
        ]

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """Return one loader a test set, examples of similar length together.

        Raises:
            ConfigError: there is no test set.
        """
        if not self.dialogues["test"]:
            raise ConfigError("no test set: name one under data.init_args.test, or set data.init_args.test_share")
        return [self._by_length(self.judged(examples_of(dialogues))) for dialogues in self.dialogues["test"].values()]

    def candidate_lists(self, stage: str, most: int) -> dict[str, list[CandidateList]]:
        """Return what responses are ranked among, at most so many examples of each set of ``validation`` or ``test``.

        Those are among the ``evaluation_examples``.

        Raises:
            G2RError: a set has too few distinct responses to draw from.
        """
        most = most if self.evaluation_examples is None else min(most, self.evaluation_examples)
        return {
            name: candidate_lists(examples_of(dialogues), self.evaluation_seed, self.choices, most)
            for name, dialogues in self.dialogues[stage].items()
        }

    def _by_length(self, examples: list[Example]) -> DataLoader[Any]:
        """Return batches of similar length, in an order drawn by the seed: the first of them are not the shortest."""
        rank, world_size = self._share()
        batch = self.evaluation_batch_size * world_size
        order = by_size(self._module().lengths(examples), batch)
        draw, rest = np.random.default_rng(self.evaluation_seed), len(order) % batch
        place = batch * int(draw.integers(len(order) // batch + 1))  # the short batch is last, not of the longest alone
        whole = np.delete(order, range(place, place + rest)).reshape(-1, batch)
        order = np.concatenate([draw.permutation(whole).ravel(), order[place : place + rest]])
        ordered = [examples[index] for index in order][rank::world_size]
        return DataLoader(
            ordered,  # type: ignore[arg-type]  # any sequence serves as a map-style dataset
            batch_size=self.evaluation_batch_size,
            collate_fn=Named(self._module().collate),
            num_workers=self.num_workers,
        )

    def _module(self) -> TeacherLike:
        assert self.trainer is not None
        return cast("TeacherLike", self.trainer.lightning_module)
