"""How varied and how long a system's replies are: Dist-n (Li et al. 2016) and Length, as G2R counts them.

1. A reply is normalised, so that systems are not told apart by the typography of their training data: lower case but
   for "I" and the starts of sentences, no space before punctuation or inside a contraction.
2. It is cut into tokens by NLTK's casual tokeniser, case kept.
3. Dist-n is the number of distinct n-grams over the number of n-grams in *all* replies together; Length is the mean
   number of tokens. Dist-n falls as a corpus grows: compare systems on the same contexts only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPACE_BEFORE = re.compile(r" +(?=[.,?!])")
_SPLIT_CONTRACTION = re.compile(r"(?<=\w) ?(['\u2019]) ?(?=(?:s|t|m|d|re|ve|ll)\b)")
_LONE_I = re.compile(r"\bi\b")
_SENTENCE_START = re.compile(r"(?:^|(?<=[.?!] ))[\"'\u201c\u2018(]*[^\W\d_]")


def normalise_reply(text: str) -> str:
    """Return a reply with ordinary capitals and spacing (after G2R's evaluation; no full stop is added at the end).

    >>> normalise_reply("i 'm FINE ,  thanks ! and you ?")
    "I'm fine, thanks! And you?"
    """
    text = " ".join(text.lower().split())
    text = _SPACE_BEFORE.sub("", text)
    text = _SPLIT_CONTRACTION.sub(r"\1", text)
    text = _LONE_I.sub("I", text)
    return _SENTENCE_START.sub(lambda start: start[0].upper(), text)


def tokens(text: str) -> list[str]:
    """Return the tokens of a text as they stand in it (NLTK ``casual_tokenize``: emoticons and URLs stay whole).

    >>> tokens("I'm fine, thanks :)")
    ["I'm", 'fine', ',', 'thanks', ':)']
    """
    from nltk.tokenize.casual import casual_tokenize  # a second to import

    return list(casual_tokenize(text, preserve_case=True))


def distinct_n(texts: Iterable[str], n: int) -> float:
    """Return the distinct n-grams of a corpus over all its n-grams (Dist-n), from 0 to 1.

    n-grams do not reach across texts. A corpus without any n-gram (no texts, or all shorter than ``n`` tokens) has 0.

    >>> distinct_n(["a b a b", "a b"], n=2)
    0.5

    Args:
        texts: replies, normalised where wanted; :func:`reply_diversity` does it.
        n: tokens a gram, at least 1.

    Raises:
        ValueError: ``n`` is below 1.
    """
    return _distinct([tokens(text) for text in texts], n)


def mean_length(texts: Iterable[str]) -> float:
    """Return the mean number of tokens a text; 0 where there are no texts."""
    return _mean_length([tokens(text) for text in texts])


def reply_diversity(replies: Iterable[str]) -> dict[str, float]:
    """Return ``distinct_2``, ``distinct_3`` and ``mean_length`` (tokens) of a system's replies, normalised first."""
    tokenised = [tokens(normalise_reply(reply)) for reply in replies]
    return {
        "distinct_2": _distinct(tokenised, 2),
        "distinct_3": _distinct(tokenised, 3),
        "mean_length": _mean_length(tokenised),
    }


def _distinct(tokenised: Sequence[Sequence[str]], n: int) -> float:
    if n < 1:
        raise ValueError(f"n={n}: must be at least 1")
    grams = [gram for text in tokenised for gram in zip(*(text[i:] for i in range(n)), strict=False)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _mean_length(tokenised: Sequence[Sequence[str]]) -> float:
    return sum(map(len, tokenised)) / len(tokenised) if tokenised else 0.0
