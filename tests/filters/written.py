"""A reply to judge, in one line."""

from __future__ import annotations

from typing import Any

from g2r_lightning.dialogue import Candidate, Example
from g2r_lightning.filters import WrittenReply

CONTEXT = ("hi! do you have any pets?", "i have a dog and two very old cats at home")


def written(
    text: str,
    *,
    original: str = "a parrot, in fact",
    candidates: tuple[str, ...] = (),
    context: tuple[str, ...] = CONTEXT,
    **rest: Any,
) -> WrittenReply:
    """Return a reply to a context of two turns."""
    example = Example("t:a:2", context, original, candidates=tuple(Candidate(each) for each in candidates))
    return WrittenReply(text, example, **rest)
