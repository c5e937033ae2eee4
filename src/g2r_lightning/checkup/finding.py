"""One line of a check: what was looked at, how it stands, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "problem")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Args:
        section: what was looked at, ``machine``.
        level: ``ok``; ``warning``, it will work, but worse than it could; ``problem``, it will fail.
        text: what was found, one line.
        remedy: what to do; empty where nothing is to be done.
    """

    section: str
    level: Level
    text: str
    remedy: str = ""


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level among findings; ``ok`` where there are none.

    >>> worst([Finding("machine", "ok", "2 cores"), Finding("machine", "warning", "1 thread")])
    'warning'
    """
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")
