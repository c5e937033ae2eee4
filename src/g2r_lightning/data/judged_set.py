"""True and false responses to contexts, as rows of vectors: what a learned metric is trained and measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from g2r_lightning.data.corruptions import Corruption, versions_of
from g2r_lightning.data.samplers import StepKey
from g2r_lightning.data.vectors import VectorTable
from g2r_lightning.dialogue import Example

Rows = npt.NDArray[np.int64]
Utterances = Callable[[Example], Sequence[str]]
"""Example -> the utterances of its context that the metric reads, oldest first, at least one."""


class JudgedBatch(NamedTuple):
    """Contexts with versions of their responses, all as vectors.

    Args:
        contexts: (B, T, d) float32, vectors of each context's utterances, oldest first, zeros behind its end.
        lengths: (B,) int64, utterances of each context, at least 1.
        responses: (N, d) float32.
        owners: (N,) int64, the context that each response answers, 0 to B - 1.
        kinds: (N,) int64, how each response was made: its place in the set's ``kinds``.
        true: (N,) bool, whether a good metric scores it high.
        examples: (B,) int64, index of each context's example in its set.
    """

    contexts: Tensor
    lengths: Tensor
    responses: Tensor
    owners: Tensor
    kinds: Tensor
    true: Tensor
    examples: Tensor


class TextRows:
    """Distinct texts, numbered in the order in which they first came."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, text: str) -> int:
        """Return the number of a text."""
        return self._rows.setdefault(text, len(self._rows))

    @property
    def texts(self) -> list[str]:
        """All texts, in order."""
        return list(self._rows)


class JudgedSet(Dataset[JudgedBatch]):
    """Examples with all versions of their responses; a whole step or batch at a time.

    Args:
        name: of the set; leads the names of its figures.
        examples: in order.
        corruptions: ways of making versions.
        seed: of the draws.
        utterances: see :data:`Utterances`.
        texts: where the distinct texts of several sets are numbered together.
        batches: examples of each batch, for a set that is gone through in order; a training set's are steps, which are
            asked for by their keys.
    """

    def __init__(
        self,
        name: str,
        examples: Sequence[Example],
        corruptions: Sequence[Corruption],
        seed: int,
        utterances: Utterances,
        texts: TextRows,
        batches: Sequence[range] | None = None,
    ) -> None:
        self.name = name
        self.examples = list(examples)
        self.kinds = kinds_of(corruptions)
        self.vectors: VectorTable | None = None
        self._batches = batches
        number = {kind: place for place, (kind, _) in enumerate(self.kinds)}
        pool = [example.response for example in self.examples]
        self._contexts: list[Rows] = []
        self._versions: list[Rows] = []
        self._made: list[Rows] = []
        for example in self.examples:
            made = versions_of(example, corruptions, pool, seed)
            self._contexts.append(np.array([texts.add(text) for text in utterances(example)], np.int64))
            self._versions.append(np.array([texts.add(version.text) for version in made], np.int64))
            self._made.append(np.array([number[version.kind] for version in made], np.int64))

    def __len__(self) -> int:
        return len(self.examples if self._batches is None else self._batches)

    def __getitem__(self, key: StepKey | int) -> JudgedBatch:
        """Return the batch of a step, or of a number."""
        if isinstance(key, StepKey):
            return self.batch(key.local)
        return self.batch([key] if self._batches is None else self._batches[key])

    @property
    def lengths(self) -> Rows:
        """Utterances of each context: (number of examples,)."""
        return np.array([len(rows) for rows in self._contexts], np.int64)

    def batch(self, examples: Sequence[int]) -> JudgedBatch:
        """Return the batch of some examples.

        Args:
            examples: indices, at least one.
        """
        assert self.vectors is not None, "the set's texts were not encoded"
        contexts = [self._contexts[example] for example in examples]
        made = np.concatenate([self._made[example] for example in examples])
        versions = [self._versions[example] for example in examples]
        lengths = np.array([len(rows) for rows in contexts])
        vectors = self.vectors.take(np.concatenate([*contexts, *versions]))
        told, responses = vectors[: lengths.sum()], vectors[lengths.sum() :]
        padded = np.zeros((len(contexts), lengths.max(), self.vectors.dimension), np.float32)
        padded[np.arange(lengths.max()) < lengths[:, None]] = told
        true = np.array([true for _, true in self.kinds])
        return JudgedBatch(
            torch.from_numpy(padded),
            torch.from_numpy(lengths),
            torch.from_numpy(responses.copy()),
            torch.from_numpy(np.repeat(np.arange(len(examples)), [len(rows) for rows in versions])),
            torch.from_numpy(made),
            torch.from_numpy(true[made]),
            torch.tensor(list(examples)),
        )


def kinds_of(corruptions: Sequence[Corruption]) -> list[tuple[str, bool]]:
    """Return the names of all kinds of versions and whether they are true, the response itself first.

    Raises:
        ValueError: a name comes twice, so that figures could not be told apart; or nothing is false.
    """
    kinds = [("original", True), *((corruption.name, corruption.true) for corruption in corruptions)]
    names = [name for name, _ in kinds]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"data.init_args.corruptions: two are called {twice[0]}; give one of them another `name`")
    if all(true for _, true in kinds):
        raise ValueError("data.init_args.corruptions: nothing would be false; name one that spoils the response")
    return kinds
