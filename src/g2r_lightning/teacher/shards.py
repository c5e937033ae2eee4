"""Run a pass over the shards of a folder under a Lightning Trainer: one process or many, on one machine or several.

Every process makes and writes whole shards of its own; nothing is gathered, so memory stays flat. Which shards are
still to be made is decided once, by the first process, before any of them writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from g2r_lightning.paths import alone_in
from g2r_lightning.store.schema import CandidateRow, ScoreRow
from g2r_lightning.store.writer import ShardWriter
from g2r_lightning.teacher.base import Teacher
from g2r_lightning.teacher.generator import Generator

Rows = Sequence[CandidateRow] | Sequence[ScoreRow]
MakeShard = Callable[[int], tuple[Rows, dict[str, Any]]]
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} contexts [{elapsed}<{remaining}{postfix}]"
NOTHING = -1  # a process whose share is one shard smaller than the others'


class ShardPass(LightningModule):
    """Make the shards that a folder lacks.

    Args:
        generator: the teacher; its model moves to the process's device.
        writer: of the folder.
        make: shard number -> its rows, and what is to be noted of them.
        what: names the pass in the progress bar, ``generating``.
        rounds: how often the teacher goes over each context.
        held: keeps the folder from other runs until it is closed.
    """

    def __init__(
        self,
        generator: Generator,
        writer: ShardWriter[Any],
        make: MakeShard,
        what: str,
        rounds: int = 1,
        held: ExitStack | None = None,
    ) -> None:
        super().__init__()
        self._generator, self._writer, self._make = generator, writer, make
        self._held = held
        self._what, self._rounds = what, rounds
        if isinstance(generator, Teacher):
            self.model = generator.model
        self._pending: list[int] = []
        self._bar: Any = None

    def setup(self, stage: str) -> None:  # noqa: ARG002 - Lightning's signature  # noqa: ARG002 - Lightning's signature
        """Let the first process look at the folder, and tell the others what it lacks."""
        if self.trainer.is_global_zero:
            if self._held is not None:
                self._held.enter_context(alone_in(self._writer.folder))
            self._writer.begin()
            self._pending = self._writer.pending_shards()
        self._pending = self.trainer.strategy.broadcast(self._pending)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return this process's shards."""
        world = self.trainer.world_size
        own = self._pending[self.trainer.global_rank :: world]
        own += [NOTHING] * (-(-len(self._pending) // world) - len(own))
        return DataLoader(own or [NOTHING], batch_size=None)  # type: ignore[arg-type]

    def on_predict_start(self) -> None:
        """Show the progress of the first process's share."""
        own = self._pending[self.trainer.global_rank :: self.trainer.world_size]
        total = sum(len(self._writer.shard_range(index)) for index in own)
        hidden = not self.trainer.is_global_zero or not own
        self._bar = tqdm(total=total, desc=self._what, unit="context", disable=hidden, bar_format=BAR)
        self._generator.progress = Progress(self._bar, self._rounds)

    def predict_step(self, batch: Any, batch_idx: int) -> int:  # noqa: ARG002 - Lightning's signature
        """Make one shard, write it, and return its number: rows that were returned would be kept."""
        index = int(batch)
        if index != NOTHING:
            rows, notes = self._make(index)
            self._writer.write(index, rows, notes)
            self._bar.update(self._writer_position(index) - self._bar.n)
        return index

    def on_predict_end(self) -> None:
        """Wait until all have written."""
        self._bar.close()
        self.trainer.strategy.barrier()

    def _writer_position(self, index: int) -> int:
        """Return how many contexts of this process's share lie before the end of a shard."""
        own = self._pending[self.trainer.global_rank :: self.trainer.world_size]
        return sum(len(self._writer.shard_range(other)) for other in own[: own.index(index) + 1])


class Progress:
    """Count contexts, replies and tokens into a progress bar.

    Args:
        bar: of tqdm; counts contexts.
        rounds: how often each context is told of.
    """

    def __init__(self, bar: Any, rounds: int = 1) -> None:
        self._bar, self._rounds = bar, rounds
        self._begun, self._replies, self._tokens = time.perf_counter(), 0, 0

    def __call__(self, contexts: int, replies: int, tokens: int) -> None:
        """Add what was done."""
        self._replies += replies
        self._tokens += tokens
        seconds = max(time.perf_counter() - self._begun, 1e-9)
        rates = f"{self._replies / seconds:.1f} reply/s, {self._tokens / seconds:.0f} token/s"
        self._bar.set_postfix_str(rates, refresh=False)
        self._bar.update(contexts / self._rounds)
