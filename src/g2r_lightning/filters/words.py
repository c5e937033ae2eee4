"""Words and their n-grams, in any script: what repetition, lengths and block lists count by.

A word is a run of letters, marks and digits, an apostrophe within it included. Marks belong to it, since the vowels of
Indic scripts are marks. Chinese and Japanese have no spaces: there, each character is a word.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

_APOSTROPHES = "'\u2019\u02bc"
_JOINERS = "\u200c\u200d"


def words(text: str) -> list[str]:
    """Return a text's words, case forgotten.

    >>> words("Don't you like it - really?")
    ["don't", 'you', 'like', 'it', 'really']
    >>> words("我喜欢 jazz")
    ['我', '喜', '欢', 'jazz']
    >>> words("की?")
    ['की']
    """
    spelled = "".join(map(_as_word_part, unicodedata.normalize("NFKC", text).casefold()))
    return [word for part in spelled.split() if (word := part.strip("'"))]


def ngrams(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Return the n-grams of a sequence in order; none where it is shorter than ``size``.

    >>> ngrams(["a", "b", "c"], 2)
    [('a', 'b'), ('b', 'c')]
    """
    return [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]


@lru_cache(maxsize=65536)
def _as_word_part(character: str) -> str:
    """Return a character as it stands in words: itself, set apart, or a space."""
    if character in _APOSTROPHES:
        return "'"
    if character in _JOINERS:
        return character
    if _stands_alone(ord(character)):
        return f" {character} "
    return character if unicodedata.category(character)[0] in "LMN" else " "


def _stands_alone(code: int) -> bool:
    """Whether a code point is of a script that writes no spaces and has a character a syllable or word."""
    return (
        0x3041 <= code <= 0x30FA or 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x3FFFF
    )
