"""What may be answered, and when nothing is: settings that hold for a Responder, or for one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import lru_cache
from math import isnan
from typing import Any, Literal

from g2r_lightning.index.block_list import BlockedResponses, read_block_list
from g2r_lightning.index.conditions import parse_condition

CALIBRATED = "calibrated"
ASKED = ("where", "no_repeat", "diversity", "threshold")
"""Rules that a stranger's request may set: the others read files, or cost as much as the stranger likes."""


@dataclass(frozen=True)
class ReplyRules:
    """What may be answered.

    Args:
        where: condition over the metadata columns, ``source = original and not tags has rude``
            (:func:`~g2r_lightning.index.conditions.parse_condition`).
        block: whole responses that are never said; case and punctuation are forgotten.
        block_patterns: regular expressions; a response in which one matches is never said.
        block_file: file of both, one a line, expressions as ``/.../``.
        no_repeat: what was said in this many of the last turns, by either speaker, is not said again; 0 for no such
            rule.
        diversity: 0 takes the k best replies; up to 1, each reply is more and more unlike those before it (maximal
            marginal relevance with lambda = 1 - diversity).
        pool: how many of the best replies diversity chooses among.
        threshold: a reply that scores less is not given, so that there may be none; ``calibrated`` takes the index's
            own (``index.abstention``); ``null`` for no threshold.
        exact: a poly-encoder's replies are proved to be the best ones; ``false`` takes what one round finds
            (:mod:`~g2r_lightning.index.poly_search`). Of a bi-encoder, its index decides.

    Raises:
        ValueError: a number is out of range.
        ConditionError: the condition cannot be read.
    """

    where: str | None = None
    block: tuple[str, ...] = ()
    block_patterns: tuple[str, ...] = ()
    block_file: str | None = None
    no_repeat: int = 0
    diversity: float = 0.0
    pool: int = 50
    threshold: float | Literal["calibrated"] | None = None
    exact: bool = True

    def __post_init__(self) -> None:
        """Refuse what no search can heed."""
        for name in ("block", "block_patterns"):
            given = getattr(self, name)
            if isinstance(given, str) or not all(isinstance(each, str) for each in given):
                raise ValueError(f"rules.{name}={given!r}: a list of texts")
            object.__setattr__(self, name, tuple(given))  # lists, as YAML has them, have no hash
        if isinstance(self.no_repeat, bool) or not isinstance(self.no_repeat, int) or self.no_repeat < 0:
            raise ValueError(f"rules.no_repeat={self.no_repeat!r}: a whole number of turns, 0 or more")
        if not (_is_number(self.diversity) and 0 <= self.diversity <= 1):
            raise ValueError(f"rules.diversity={self.diversity!r}: a number from 0 (the best) to 1 (the most varied)")
        if self.pool < 1:
            raise ValueError(f"rules.pool={self.pool}: at least 1")
        if not (self.threshold in (None, CALIBRATED) or _is_number(self.threshold)):
            raise ValueError(f"rules.threshold={self.threshold!r}: a score, '{CALIBRATED}', or null")
        if self.where is not None and not isinstance(self.where, str):
            raise ValueError(f"rules.where={self.where!r}: a condition, as text")
        if self.where:
            parse_condition(self.where)

    def but(
        self,
        where: str | None = None,
        no_repeat: int | None = None,
        diversity: float | None = None,
        threshold: float | Literal["calibrated"] | None = None,
    ) -> ReplyRules:
        """Return these rules with some of them set otherwise; ``None`` leaves a rule as it is.

        An empty ``where`` and a threshold of ``-inf`` take a rule away.
        """
        given = {"where": where, "no_repeat": no_repeat, "diversity": diversity, "threshold": threshold}
        changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(self, **changed) if changed else self

    def asked(self, wishes: Mapping[str, Any]) -> ReplyRules:
        """Return these rules as a request wishes them.

        A ``where`` of the request holds beside these rules' own, and ``no_repeat`` looks back as far as either asks;
        ``diversity`` and ``threshold`` are set as it says. What is blocked stays blocked.

        Raises:
            ValueError: a wish is no rule, or none that a request may set, or out of range.
        """
        for name in wishes:
            if name not in ASKED:
                nearest = get_close_matches(str(name), ASKED, 1)
                hint = f"did you mean '{nearest[0]}'?" if nearest else f"a request may set {', '.join(ASKED)}"
                known = name in {field.name for field in fields(self)}
                raise ValueError(f"rules.{name}: {'not for requests' if known else 'no such rule'}; {hint}")
        changed = replace(self, **wishes)
        changed = replace(changed, no_repeat=max(self.no_repeat, changed.no_repeat))
        if self.where and changed.where and changed.where != self.where:
            return replace(changed, where=f"({self.where}) and ({changed.where})")
        return changed if changed.where else replace(changed, where=self.where)

    @property
    def which(self) -> ReplyRules:
        """The rules alone that tell which responses may be said at all, whatever the dialogue."""
        return ReplyRules(self.where, self.block, self.block_patterns, self.block_file)

    @property
    def all_may_be_said(self) -> bool:
        """Whether no response is ruled out."""
        return not (self.where or self.block or self.block_patterns or self.block_file)

    @property
    def blocked(self) -> BlockedResponses:
        """What must not be said.

        Raises:
            G2RError: an expression is invalid, or the file cannot be read.
        """
        file = ([], []) if self.block_file is None else read_block_list(self.block_file)
        return _blocked((*self.block, *file[0]), (*self.block_patterns, *file[1]))


@lru_cache(maxsize=16)
def _blocked(texts: tuple[str, ...], patterns: tuple[str, ...]) -> BlockedResponses:
    return BlockedResponses(texts, patterns)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return not isnan(value)
    except OverflowError:  # a whole number that no float can be
        return False
