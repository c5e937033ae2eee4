"""When two texts are the same reply.

Exact duplicates are told apart by :func:`text_key` (surrounding and repeated white space is not a difference); leaks
between splits and near-duplicates by :func:`normalised`, which also forgets case and punctuation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

_NOT_WORD = re.compile(r"[\W_]+", re.ASCII)


def text_key(text: str) -> str:
    """Return the identity of a reply: NFC, white space folded.

    >>> text_key("  hi   there ") == text_key("hi there")
    True
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def half_character(text: str) -> bool:
    r"""Whether a text holds an unpaired surrogate: JSON can spell it, no tokenizer, UTF-8 or Parquet file takes it.

    >>> half_character("\ud83d"), half_character("\N{DOG}")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def printable(text: str) -> str:
    r"""Return a text without the control characters that would steer the terminal; line breaks stay.

    >>> printable("a\x1b[31mb\nc")
    'a\ufffd[31mb\nc'
    """
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def normalised(text: str) -> str:
    """Return the words of a text alone: case, punctuation and spacing forgotten.

    A text without any word character (an emoji, "?!") is kept as it is: all of those would else be equal.

    >>> normalised("It 's  OK!") == normalised("it's ok")
    True
    >>> normalised("?!") == normalised("...")
    False
    >>> normalised("I \u2764\ufe0f it") == normalised("i it")
    True
    >>> normalised("\u0915\u0940") == normalised("\u0915\u093e")  # two syllables that differ in their vowel sign
    False
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = _NOT_WORD.sub("", plain) if plain.isascii() else "".join(_word_characters(plain))
    return words or text_key(text)


def _word_characters(text: str) -> Iterator[str]:
    """Yield letters, numbers, and the marks upon them, with which many scripts write vowels."""
    inside = False
    for character in text:
        kind = unicodedata.category(character)[0]
        inside = kind in "LN" or (kind == "M" and inside)
        if inside:
            yield character


def dialogue_key(turns: Iterable[str]) -> str:
    """Return the identity of a whole dialogue after :func:`normalised`, to find leaks between splits."""
    return "\n".join(normalised(turn) for turn in turns)
