"""Replies that the example has already: they would count twice in the loss and teach nothing."""

from __future__ import annotations

from typing import Literal

from g2r_lightning.dialogue.text import normalised, text_key
from g2r_lightning.filters.base import ReplyFilter, Setting, WrittenReply
from g2r_lightning.filters.checks import require

_KEYS = {"exact": text_key, "normalised": normalised}


class Duplicates(ReplyFilter):
    """Drop what equals the original response, a candidate that came with the data, or a reply kept before.

    Args:
        identity: when two texts are one. ``exact``: white space alone is no difference; ``normalised``: nor are case
            and punctuation.
    """

    def __init__(self, identity: Literal["exact", "normalised"] = "normalised") -> None:
        require(identity in _KEYS, self.name, "identity", identity, "use exact or normalised")
        self.identity = identity

    def drops(self, reply: WrittenReply) -> bool:
        """Whether the example has this text."""
        key = _KEYS[self.identity]
        given = (candidate.response for candidate in reply.example.candidates)
        own = key(reply.text)
        return any(key(text) == own for text in (reply.example.response, *given, *reply.earlier))

    def settings(self) -> dict[str, Setting]:
        """Return when two texts are one."""
        return {"identity": self.identity}
