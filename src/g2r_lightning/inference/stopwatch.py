"""Where the time of a reply goes: seconds by the name of a stage, taken while the reply is made, not in another run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter
from typing import Any

STAGES = ("tokenise", "encode", "search", "rerank")
Stage = Callable[[str], AbstractContextManager[Any]]


class Stopwatch:
    """Add up wall-clock seconds by stage.

    >>> watch = Stopwatch(iter([1.0, 1.5, 2.0, 2.25]).__next__)
    >>> for _ in range(2):
    ...     with watch.stage("encode"):
    ...         pass
    >>> watch.seconds
    {'encode': 0.75}

    Args:
        clock: tells seconds from any beginning.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of this block to a stage, whether the block ends well or not."""
        begun = self._clock()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._clock() - begun


def stage_of(stopwatch: Stopwatch | None) -> Stage:
    """Return what opens a stage: a stopwatch's, or one that takes no time."""
    return nullcontext if stopwatch is None else stopwatch.stage
