"""Which examples make a step: shuffled by (seed, epoch), shared out over processes, resumable in mid-epoch.

A step's key carries everything that its random draws depend on, so a batch is the same whichever worker makes it, in
whichever order, before or after a restart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

POOL = 50


class StepKey(NamedTuple):
    """One step of one epoch.

    Args:
        epoch: zero-based.
        step: zero-based step within the epoch.
        examples: indices of the examples of the *global* batch, in order.
        rank: which share of them is this process's: ``examples[rank::world_size]``.
        world_size: number of processes.
    """

    epoch: int
    step: int
    examples: tuple[int, ...]
    rank: int = 0
    world_size: int = 1

    @property
    def local(self) -> tuple[int, ...]:
        """Indices of the examples that this process works on."""
        return self.examples[self.rank :: self.world_size]


def by_size(lengths: npt.NDArray[np.int64], batch_size: int) -> npt.NDArray[np.int64]:
    """Return an order in which each ``batch_size`` examples are of similar size.

    Where an example is padded in two places (an encoder's context, a decoder's response), sorting by one leaves the
    other as it falls. So the examples are sorted by the first, cut into about as many strips as a strip has batches,
    and each strip is sorted by the second.

    >>> by_size(np.array([[9, 1], [2, 7], [8, 6], [1, 5], [2, 2], [1, 1], [9, 9], [8, 2]]), 2).tolist()
    [5, 4, 3, 1, 0, 7, 2, 6]

    Args:
        lengths: (n,) or (n, 2).
        batch_size: examples that are padded together.
    """
    if lengths.ndim == 1:
        return np.argsort(lengths, kind="stable")
    first = np.argsort(lengths[:, 0], kind="stable")
    strip = batch_size * max(1, round((len(first) / batch_size) ** 0.5))
    strips = [first[start : start + strip] for start in range(0, len(first), strip)]
    return np.concatenate([part[np.argsort(lengths[part, 1], kind="stable")] for part in strips] or [first])


class StepSampler(Sampler[StepKey]):
    """Yield the steps of an epoch.

    Args:
        num_examples: size of the training set.
        batch_size: contexts a process and step.
        seed: of the shuffle.
        rank: of this process.
        world_size: number of processes.
        lengths: (n,) tokens of each example, or (n, 2) of what is padded apart, see :func:`by_size`; where given,
            batches hold examples of similar length, so that little padding is computed: pools of ``POOL`` shuffled
            batches are sorted, cut, and the batches shuffled again.
        drop_short: leave out a last step that has fewer examples than there are processes.
    """

    def __init__(
        self,
        num_examples: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        lengths: npt.NDArray[np.int64] | None = None,
        drop_short: bool = True,
    ) -> None:
        self.num_examples = num_examples
        self.lengths = lengths
        self.global_batch = batch_size * world_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.fewest = world_size if drop_short else 1
        self.epoch = 0
        self._taken = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle; Lightning calls it before each epoch."""
        self.epoch = epoch

    def go_on(self, epoch: int, taken: int) -> None:
        """Pass over the first ``taken`` steps when ``epoch`` is next iterated; any other epoch begins at its start."""
        self._taken = (epoch, taken)

    @property
    def start(self) -> int:
        """The step at which the next iteration begins."""
        epoch, taken = self._taken
        return taken if epoch == self.epoch else 0

    def __len__(self) -> int:
        whole, rest = divmod(self.num_examples, self.global_batch)
        return whole + (rest >= self.fewest)

    def __iter__(self) -> Iterator[StepKey]:
        batches = self._batches(np.random.default_rng([self.seed, self.epoch]))
        start, self._taken = self.start, (0, 0)
        for step in range(start, len(self)):
            chosen = tuple(int(example) for example in batches[step])
            yield StepKey(self.epoch, step, chosen, self.rank, self.world_size)

    def _batches(self, draw: np.random.Generator) -> list[npt.NDArray[np.int64]]:
        """Return the global batches of an epoch, the one that is not full last."""
        order = draw.permutation(self.num_examples)
        if self.lengths is not None:
            pools = np.split(order, range(POOL * self.global_batch, len(order), POOL * self.global_batch))
            order = np.concatenate([pool[by_size(self.lengths[pool], self.global_batch)] for pool in pools])
        full = self.num_examples // self.global_batch
        batches = [order[i * self.global_batch : (i + 1) * self.global_batch] for i in range(full + 1)]
        if self.lengths is not None:
            batches = [*(batches[i] for i in draw.permutation(full)), batches[full]]
        return batches


class ResumableLoader(DataLoader[Any]):
    """A loader of whole steps whose position goes into the checkpoint.

    Lightning asks loaders that have ``state_dict`` for it, and restores it before a resumed epoch; prefetched but
    unused steps are not counted. The position belongs to one epoch: a checkpoint of an epoch's end, which
    ``limit_train_batches`` may have put before the last step, is followed by a whole one.

    Args:
        dataset: takes a :class:`StepKey` and returns its batch.
        sampler: of the steps.
        num_workers: processes that make batches.
    """

    def __init__(self, dataset: Dataset[Any], sampler: StepSampler, num_workers: int = 0) -> None:
        # Each pass over a DataLoader draws a seed for its workers, from the global generator unless it has its own:
        # a resumed epoch, being one pass more, would then go on with other dropout masks than an uninterrupted one.
        generator = torch.Generator().manual_seed(sampler.seed)
        super().__init__(dataset, batch_size=None, sampler=sampler, num_workers=num_workers, generator=generator)
        self._steps = sampler
        self._taken = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._taken = self._steps.start
        for batch in super().__iter__():
            self._taken += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return how many steps of which epoch were taken."""
        return {"epoch": self._steps.epoch, "taken": self._taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind the steps that were taken."""
        self._steps.go_on(state["epoch"], state["taken"])
