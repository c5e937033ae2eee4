"""How long a reply takes: systems answer the same contexts in turns, one context at a time.

1. Latency is wall-clock time a context at batch size 1, after three uncounted calls (G2R, Kim et al. 2021): encoding
   and search of a retriever, the whole decoding of a generator.
2. A machine's speed drifts with heat and neighbours, so no system is measured before the other: all answer the first
   contexts, in turns, then all answer the next ones, another system beginning each time.
3. A turn begins with an uncounted call, since the system before it has emptied the caches.

Nothing here knows what answers: a :class:`System` has a name and replies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np

from g2r_lightning.inference.stopwatch import STAGES, Stopwatch

WARM_UPS = 3
OTHER = "other"


class System(Protocol):
    """What answers contexts."""

    name: str

    def answer(self, context: Sequence[str], stopwatch: Stopwatch) -> str:
        """Return the reply to one context, and tell the seconds of the stages that it has."""


@dataclass(frozen=True, slots=True)
class Call:
    """One timed reply.

    Args:
        system: who replied.
        context: zero-based place of the context.
        seconds: wall-clock time of the whole call.
        stages: seconds of the stages that were told, at most ``seconds`` together.
        reply: what was said.
    """

    system: str
    context: int
    seconds: float
    stages: dict[str, float]
    reply: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The timed replies of one system.

    Args:
        system: its name.
        calls: how many.
        mean: seconds.
        p50: seconds; this and the next two interpolate linearly between calls.
        p95: seconds.
        p99: seconds.
        stages: median seconds of every stage told; ``other`` is what no stage accounts for.
    """

    system: str
    calls: int
    mean: float
    p50: float
    p95: float
    p99: float
    stages: dict[str, float]

    @property
    def replies_per_second(self) -> float:
        """One at a time."""
        return 1 / self.mean


def measure(
    systems: Sequence[System],
    contexts: Sequence[Sequence[str]],
    write: Callable[[Call], None],
    done: Collection[tuple[str, int]] = (),
    turn: int = 10,
    clock: Callable[[], float] = perf_counter,
) -> None:
    """Let every system answer every context.

    Args:
        systems: with distinct names.
        contexts: each a list of utterances, oldest first.
        write: is given each call as soon as it is timed.
        done: (system, place of the context) that were timed before, and are passed over.
        turn: contexts that one system answers before the next system's turn.
        clock: tells seconds from any beginning.
    """
    warm: set[str] = set()
    for number, start in enumerate(range(0, len(contexts), turn)):
        first = number % len(systems)
        for system in (*systems[first:], *systems[:first]):
            places = range(start, min(start + turn, len(contexts)))
            missing = [place for place in places if (system.name, place) not in done]
            for _ in range((1 if system.name in warm else WARM_UPS) if missing else 0):
                system.answer(contexts[missing[0]], Stopwatch(clock))
                warm.add(system.name)
            for place in missing:
                write(_timed(system, place, contexts[place], clock))


def summarise(calls: Iterable[Call]) -> list[Summary]:
    """Return what each system took, in the order in which they first appear."""
    by_system: dict[str, list[Call]] = {}
    for call in calls:
        by_system.setdefault(call.system, []).append(call)
    return [_summary(system, own) for system, own in by_system.items()]


def _timed(system: System, place: int, context: Sequence[str], clock: Callable[[], float]) -> Call:
    stopwatch = Stopwatch(clock)
    begun = clock()
    reply = system.answer(context, stopwatch)
    return Call(system.name, place, clock() - begun, dict(stopwatch.seconds), reply)


def _summary(system: str, calls: Sequence[Call]) -> Summary:
    seconds = np.array([call.seconds for call in calls])
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]).tolist()
    told = [name for name in STAGES if any(name in call.stages for call in calls)]
    stages = {name: float(np.median([call.stages.get(name, 0.0) for call in calls])) for name in told}
    if told:
        stages[OTHER] = float(np.median([call.seconds - sum(call.stages.values()) for call in calls]))
    return Summary(system, len(calls), float(seconds.mean()), p50, p95, p99, stages)
