"""What a generative teacher is fine-tuned on: every (context, response) of the dialogues, as padded sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset

from g2r_lightning.data.corpus import examples_of
from g2r_lightning.data.modules import DialogueDataModule
from g2r_lightning.data.samplers import ResumableLoader, StepKey
from g2r_lightning.dialogue import Example

Collate = Callable[[Sequence[Example]], dict[str, Any]]


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
        """Return the batch of one step."""
        return self.collate([self.examples[index] for index in key.local])


class TeacherDataModule(DialogueDataModule):
    """The same dialogues and settings as :class:`DialogueDataModule`, for ``fit`` of a teacher.

    Settings that concern retrieval alone (negatives, candidate lists, response files) are without effect here.
    """

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader of training steps, examples of similar length together."""
        dataset = SequenceSet(self.train_examples, self._collate())
        return self.training_loader(dataset, _lengths(self.train_examples))

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Return one loader a validation set, in the order of length."""
        return [self._in_order(examples_of(dialogues)) for dialogues in self.dialogues["validation"].values()]

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """Return one loader a test set, in the order of length."""
        return [self._in_order(examples_of(dialogues)) for dialogues in self.dialogues["test"].values()]

    def _in_order(self, examples: list[Example]) -> DataLoader[Any]:
        rank, world_size = self._share()
        ordered = [examples[index] for index in np.argsort(_lengths(examples), kind="stable")][rank::world_size]
        return DataLoader(
            ordered,  # type: ignore[arg-type]  # any sequence serves as a map-style dataset
            batch_size=self.evaluation_batch_size,
            collate_fn=self._collate(),
            num_workers=self.num_workers,
        )

    def _collate(self) -> Collate:
        assert self.trainer is not None
        return cast("Collate", self.trainer.lightning_module.collate)


def _lengths(examples: Sequence[Example]) -> npt.NDArray[np.int64]:
    """Return the number of characters of each context and response, the yardstick of similar length."""
    return np.array([sum(map(len, example.context)) + len(example.response) for example in examples])
