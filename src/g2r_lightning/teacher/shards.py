"""What a teacher tells while it goes over the shards of a store: contexts, replies and tokens, for the progress bar.

The pass itself is :class:`g2r_lightning.data.shard_pass.ShardPass`.
"""

from __future__ import annotations

import time
from typing import Any


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
