"""When two texts are the same reply.

Exact duplicates are told apart by :func:`text_key` (surrounding and repeated white space is not a difference); leaks
between splits and near-duplicates by :func:`normalised`, which also forgets case and punctuation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_NOT_WORD = re.compile(r"[\W_]+", re.UNICODE)


def text_key(text: str) -> str:
    """Return the identity of a reply: NFC, white space folded.

    >>> text_key("  hi   there ") == text_key("hi there")
    True
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def normalised(text: str) -> str:
    """Return the words of a text alone: case, punctuation and spacing forgotten.

    A text without any word character (an emoji, "?!") is kept as it is: all of those would else be equal.

    >>> normalised("It 's  OK!") == normalised("it's ok")
    True
    >>> normalised("?!") == normalised("...")
    False
    """
    words = _NOT_WORD.sub("", unicodedata.normalize("NFKC", text).casefold())
    return words or text_key(text)


def dialogue_key(turns: Iterable[str]) -> str:
    """Return the identity of a whole dialogue after :func:`normalised`, to find leaks between splits."""
    return "\n".join(normalised(turn) for turn in turns)
