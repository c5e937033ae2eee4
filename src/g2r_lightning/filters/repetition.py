"""Replies that say what was said: by the context, or by themselves."""

from __future__ import annotations

from g2r_lightning.dialogue.text import normalised
from g2r_lightning.filters.base import ReplyFilter, Setting, WrittenReply
from g2r_lightning.filters.checks import require
from g2r_lightning.filters.words import ngrams, words


class RepeatsContext(ReplyFilter):
    """Drop a reply that gives an utterance of the context back.

    Args:
        share: most of the reply's word n-grams that one utterance may hold as well, from 0 to 1; with 1 only a reply
            that equals an utterance, case and punctuation aside, is dropped.
        ngram: words of an n-gram. A reply with fewer words is dropped only where it equals an utterance.
    """

    def __init__(self, share: float = 0.7, ngram: int = 3) -> None:
        require(0 <= share <= 1, self.name, "share", share, "use 0 to 1")
        require(ngram >= 1, self.name, "ngram", ngram, "use 1 or more")
        self.share = share
        self.ngram = ngram

    def drops(self, reply: WrittenReply) -> bool:
        """Whether an utterance of the context is the reply, or holds too much of it."""
        own = normalised(reply.text)
        if any(normalised(turn) == own for turn in reply.example.context):
            return True
        grams = ngrams(words(reply.text), self.ngram) if self.share < 1 else []
        most = self.share * len(grams)
        return bool(grams) and any(self._shared(grams, turn) > most for turn in reply.example.context)

    def settings(self) -> dict[str, Setting]:
        """Return share and size of n-grams."""
        return {"share": self.share, "ngram": self.ngram}

    def _shared(self, grams: list[tuple[str, ...]], turn: str) -> int:
        """Return how many of the n-grams a turn holds."""
        said = set(ngrams(words(turn), self.ngram))
        return sum(gram in said for gram in grams)


class Repetitive(ReplyFilter):
    """Drop a reply that says the same over and over, "i like it and i like it and i like it", say.

    Args:
        distinct: least share of different ones among the reply's word n-grams, from 0 to 1 (Dist-n of the one reply).
        ngram: words of an n-gram.
        min_ngrams: a reply with fewer n-grams is kept: "no no no" is emphasis.
    """

    def __init__(self, distinct: float = 0.5, ngram: int = 2, min_ngrams: int = 3) -> None:
        require(0 <= distinct <= 1, self.name, "distinct", distinct, "use 0 to 1")
        require(ngram >= 1, self.name, "ngram", ngram, "use 1 or more")
        require(min_ngrams >= 1, self.name, "min_ngrams", min_ngrams, "use 1 or more")
        self.distinct = distinct
        self.ngram = ngram
        self.min_ngrams = min_ngrams

    def drops(self, reply: WrittenReply) -> bool:
        """Whether too few of the n-grams are different."""
        grams = ngrams(words(reply.text), self.ngram)
        return len(grams) >= self.min_ngrams and len(set(grams)) < self.distinct * len(grams)

    def settings(self) -> dict[str, Setting]:
        """Return floor and size of n-grams."""
        return {"distinct": self.distinct, "ngram": self.ngram, "min_ngrams": self.min_ngrams}
