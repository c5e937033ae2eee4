"""Replies that are empty, of the wrong length, or not ended."""

from __future__ import annotations

import re
import unicodedata

from g2r_lightning.filters.base import ReplyFilter, Setting, WrittenReply
from g2r_lightning.filters.checks import require
from g2r_lightning.filters.words import words

_ENDS = frozenset(
    ".!?"
    "\u2026\u203d\u3002\uff01\uff1f\uff61\u061f\u06d4\u0964\u0965\u17d4\u104b"  # of other scripts: Chinese, Arabic,
    "\u0f0d\u1362\u1367\u0589\u2047\u2048\u2049\u203c\u2e2e"  # Devanagari, Khmer, Burmese, Tibetan, Ethiopic, Armenian
)
_EMOTICON = re.compile(r"[:;=8xX][-'^o]?[)(\]\[DPpOo3/\\|*]+$|<3+$")


class Empty(ReplyFilter):
    """Drop a reply without any text; keep this first, so that no other filter is blamed for it."""

    def drops(self, reply: WrittenReply) -> bool:
        """Whether there is nothing but white space."""
        return not reply.text.strip()


class Length(ReplyFilter):
    """Drop what is shorter or longer than asked for.

    Args:
        min_words: least number of words; an emoji or a question mark is none.
        max_words: most words; ``None`` for any number. In Chinese and Japanese each character is a word.
        min_characters: least number of characters, surrounding white space not counted.
        max_characters: most characters; ``None`` for any number.
    """

    def __init__(
        self,
        min_words: int = 0,
        max_words: int | None = None,
        min_characters: int = 0,
        max_characters: int | None = None,
    ) -> None:
        for unit, least, most in (("words", min_words, max_words), ("characters", min_characters, max_characters)):
            require(least >= 0, self.name, f"min_{unit}", least, "use 0 or more")
            require(most is None or most >= max(least, 1), self.name, f"max_{unit}", most, f"use min_{unit} or more")
        self.words = (min_words, max_words)
        self.characters = (min_characters, max_characters)

    def drops(self, reply: WrittenReply) -> bool:
        """Whether words or characters are too few or too many."""
        return _outside(len(reply.text.strip()), *self.characters) or (
            self.words != (0, None) and _outside(len(words(reply.text)), *self.words)
        )

    def settings(self) -> dict[str, Setting]:
        """Return the four limits."""
        return {
            "min_words": self.words[0],
            "max_words": self.words[1],
            "min_characters": self.characters[0],
            "max_characters": self.characters[1],
        }


class Truncated(ReplyFilter):
    """Drop a reply that the limit of tokens cut off.

    Args:
        punctuation: also ask for the end of a sentence: a full stop, question or exclamation mark of any script, an
            emoji or an emoticon, with or without closing quotes and brackets. Chat without punctuation is dropped then.
    """

    def __init__(self, punctuation: bool = False) -> None:
        self.punctuation = punctuation

    def drops(self, reply: WrittenReply) -> bool:
        """Whether the teacher did not end the reply, or, where asked for, the sentence."""
        return not reply.finished or (self.punctuation and not ends_a_sentence(reply.text))

    def settings(self) -> dict[str, Setting]:
        """Return what counts as an end."""
        return {"punctuation": self.punctuation}


def ends_a_sentence(text: str) -> bool:
    """Whether a text's last mark ends a sentence.

    >>> ends_a_sentence('he said "no!"'), ends_a_sentence("see you :)"), ends_a_sentence("i think that")
    (True, True, False)
    """
    text = text.rstrip()
    if _EMOTICON.search(text[-12:]):
        return True
    while text and (text[-1] in "\"'*~" or unicodedata.category(text[-1]) in ("Pe", "Pf", "Pi", "Mn", "Cf", "Sk")):
        text = text[:-1].rstrip()
    return bool(text) and (text[-1] in _ENDS or unicodedata.category(text[-1]) == "So")


def _outside(count: int, least: int, most: int | None) -> bool:
    return count < least or (most is not None and count > most)
