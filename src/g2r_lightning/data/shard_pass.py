"""Run a pass over the shards of a folder under a Lightning Trainer: one process or many, on one machine or several.

Every process makes and writes whole shards of its own; nothing is gathered, so memory stays flat. Which shards are
still to be made is decided once, by the first process, before any of them writes. A teacher's two passes and the
encoding of a response set are such passes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader

from g2r_lightning.paths import alone_in
from g2r_lightning.progress import progress_bar
from g2r_lightning.stopping import stop_signals

NOTHING = -1  # a process whose share is one shard smaller than the others'


class Shards(Protocol):
    """A folder that is filled shard by shard."""

    @property
    def folder(self) -> Path:
        """Where the shards lie."""

    def begin(self) -> None:
        """Make the folder ready, or refuse it; the first process alone calls this."""

    def pending_shards(self) -> list[int]:
        """Return the shards that are still to be made, once the folder is ready."""

    def shard_length(self, index: int) -> int:
        """Return how many items a shard has."""


class ShardPass(LightningModule):
    """Make the shards that a folder lacks.

    Args:
        shards: the folder.
        make: makes a shard and writes it, given its number.
        what: names the pass in the progress bar, ``generating``.
        unit: what the bar counts, ``contexts``.
        watch: is given the bar, so that progress within a shard can be told.
        model: moves to the process's device.
        held: keeps the folder from other runs until it is closed.
    """

    def __init__(
        self,
        shards: Shards,
        make: Callable[[int], None],
        what: str,
        unit: str,
        watch: Callable[[Any], None],
        model: nn.Module | None = None,
        held: ExitStack | None = None,
    ) -> None:
        super().__init__()
        self._shards, self._make = shards, make
        self._held = held
        self._what, self._unit, self._watch = what, unit, watch
        if model is not None:
            self.model = model
        self._pending: list[int] = []
        self._bar: Any = None

    def setup(self, stage: str) -> None:  # noqa: ARG002 - Lightning's signature
        """Let the first process look at the folder, and tell the others what it lacks."""
        if self.trainer.is_global_zero:
            if self._held is not None:
                self._held.enter_context(alone_in(self._shards.folder))
            self._shards.begin()
            self._pending = self._shards.pending_shards()
        self._pending = self.trainer.strategy.broadcast(self._pending)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return this process's shards."""
        own = self._own()
        own += [NOTHING] * (-(-len(self._pending) // self.trainer.world_size) - len(own))
        return DataLoader(own or [NOTHING], batch_size=None)  # type: ignore[arg-type]

    def on_predict_start(self) -> None:
        """Show the progress of the first process's share; a signal may stop any process, whatever the others do."""
        if (signals := stop_signals()) is not None:
            signals.take_back()
        own = self._own()
        total = sum(self._shards.shard_length(index) for index in own)
        hidden = not self.trainer.is_global_zero or not own
        form = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} " + self._unit
        form += " [{elapsed}<{remaining}{postfix}]"
        self._bar = progress_bar(total=total, desc=self._what, disable=hidden, bar_format=form)
        self._watch(self._bar)

    def predict_step(self, batch: Any, batch_idx: int) -> int:  # noqa: ARG002 - Lightning's signature
        """Make one shard, and return its number: rows that were returned would be kept."""
        index = int(batch)
        if index != NOTHING:
            self._make(index)
            self._bar.update(self._position(index) - self._bar.n)
        return index

    def on_predict_end(self) -> None:
        """Wait until all have written."""
        self._bar.close()
        self.trainer.strategy.barrier()

    def _own(self) -> list[int]:
        return self._pending[self.trainer.global_rank :: self.trainer.world_size]

    def _position(self, index: int) -> int:
        """Return how many items of this process's share lie before the end of a shard."""
        own = self._own()
        return sum(self._shards.shard_length(other) for other in own[: own.index(index) + 1])
