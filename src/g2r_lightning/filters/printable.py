"""What no reader can see: control characters, and the marks that failed decoding leaves behind."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from g2r_lightning.filters.base import ReplyFilter, WrittenReply

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_INVISIBLE = frozenset(
    "\ufeff"  # byte order mark
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # text turned around: harmless when nested, else a trick
    "\u2061\u2062\u2063\u2064\u206a\u206b\u206c\u206d\u206e\u206f\ufff9\ufffa\ufffb"  # of formulas and annotations
)


class Printable(ReplyFilter):
    """Drop a reply with control characters, U+FFFD, lone surrogates, private or unassigned code points.

    Every script stays, and so does what joins its letters or an emoji's parts: zero-width joiners, variation selectors,
    direction marks, tags of flags. In the emoji blocks U+1F000-1FAFF unassigned code points stay too, since an older
    Python's tables lack the emoji of a newer Unicode.
    """

    def drops(self, reply: WrittenReply) -> bool:
        """Whether one character is of those kinds."""
        return any(_unprintable(character) for character in reply.text)


@lru_cache(maxsize=65536)
def _unprintable(character: str) -> bool:
    if character == _REPLACEMENT or character in _INVISIBLE:
        return True
    category = unicodedata.category(character)
    if category == "Cc":
        return not character.isspace()
    return category in ("Cs", "Co") or (category == "Cn" and not 0x1F000 <= ord(character) <= 0x1FAFF)
