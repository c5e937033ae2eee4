"""Which responses a query may have: a condition over the metadata columns becomes a mask over the rows.

1. :func:`parse_condition` reads ``source = original and not tags has rude`` by a grammar; nothing is ever run as code.
2. Every comparison is a mask that Arrow computes over the whole column, over the distinct values alone where the column
   is dictionary-encoded; a list holds a value or it does not.
3. ``and``, ``or`` and ``not`` combine masks. A missing value equals nothing, so that ``!=`` is always ``not =``, and
   ``not`` always the complement; ``licence = null`` asks for the missing ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, lru_cache, reduce
from threading import Lock
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from g2r_lightning.errors import ConfigError

Mask = npt.NDArray[np.bool_]
Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "has"]
MOST_CHARACTERS = 2000
"""Longest condition: a service takes them from strangers."""

_ORDER: dict[str, Callable[..., Any]] = {
    "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal,
}  # fmt: skip
_PARSING = Lock()


class ConditionError(ConfigError, ValueError):
    """A condition cannot be read, or does not fit the columns; also a ``ValueError``: it is the caller's to mend."""

    def __init__(self, condition: str, place: int, reason: str) -> None:
        super().__init__(f"where={condition!r}, character {place + 1}: {reason}")


@dataclass(frozen=True, slots=True)
class Value:
    """A value as it was written; it is read as what its column holds.

    Args:
        text: without quotes.
        place: where it stands, from 0.
        missing: whether it is the word ``null``, unquoted.
    """

    text: str
    place: int
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """``column operator values``; with ``in`` one of several, else one value.

    Args:
        column: its name.
        operator: how it is compared.
        values: what with.
        place: of the column's name in the condition, from 0.
    """

    column: str
    operator: Operator
    values: tuple[Value, ...]
    place: int


@dataclass(frozen=True, slots=True)
class Not:
    """What the other does not hold of."""

    part: Node


@dataclass(frozen=True, slots=True)
class Combined:
    """Parts that all hold (``and``), or of which one does (``or``)."""

    word: Literal["and", "or"]
    parts: tuple[Node, ...]


Node = Comparison | Not | Combined


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that was read.

    Args:
        text: as it was written.
        root: what it says.
    """

    text: str
    root: Node

    def mask(self, table: pa.Table) -> Mask:
        """Return of which rows the condition holds.

        >>> table = pa.table({"source": ["original", "generated", None], "tags": [["a", "b"], [], ["b"]]})
        >>> parse_condition("tags has b and source != generated").mask(table).tolist()
        [True, False, True]

        Args:
            table: R rows; columns of strings, numbers, truth values, dates, or lists of such.

        Returns:
            (R,) bool.

        Raises:
            ConditionError: a column is not there, or holds what the value or the operator does not fit.
        """
        return self._mask(self.root, table)

    def _mask(self, node: Node, table: pa.Table) -> Mask:
        if isinstance(node, Not):
            return ~self._mask(node.part, table)
        if isinstance(node, Combined):
            join = np.logical_and if node.word == "and" else np.logical_or
            return reduce(join, (self._mask(part, table) for part in node.parts))
        return self._compared(node, table)

    def _compared(self, node: Comparison, table: pa.Table) -> Mask:
        if node.column not in table.column_names:
            raise ConditionError(self.text, node.place, _unknown(node.column, table.schema))
        column = table[node.column]
        self._check(node, column.type)
        test = self._test(node, held_type(column.type))
        masks = [_over(chunk, test, any(value.missing for value in node.values)) for chunk in column.chunks]
        found = np.concatenate(masks) if masks else np.zeros(0, bool)
        return ~found if node.operator == "!=" else found

    def _check(self, node: Comparison, kind: pa.DataType) -> None:
        if node.operator == "has" and not is_list(kind):
            raise ConditionError(
                self.text, node.place, f"'has' looks into lists, and '{node.column}' holds one value each: use ="
            )
        if node.operator in _ORDER and (is_list(kind) or node.values[0].missing):
            told = "a list" if is_list(kind) else "a missing value"
            raise ConditionError(self.text, node.place, f"{told} has no order: use =, !=, in or has")

    def _test(self, node: Comparison, kind: pa.DataType) -> Callable[[pa.Array], pa.Array]:
        """Return what tells of an array of single values which of them are meant."""
        wanted = [self._read(node, value, kind) for value in node.values if not value.missing]
        if node.operator in _ORDER:
            compare = _ORDER[node.operator]
            return lambda values: pc.fill_null(compare(values, wanted[0]), False)
        among = pa.array([each.as_py() for each in wanted], kind)
        return lambda values: pc.is_in(values, value_set=among)

    def _read(self, node: Comparison, value: Value, kind: pa.DataType) -> pa.Scalar:
        try:
            return pa.scalar(value.text).cast(kind)
        except (pa.ArrowException, ValueError) as error:
            raise ConditionError(
                self.text, value.place, f"column '{node.column}' holds {kind}, and {value.text!r} is none"
            ) from error


@lru_cache(maxsize=256)
def parse_condition(text: str) -> Condition:
    """Read a condition.

    ``column = value``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``column in (a, b)``, ``column not in (a, b)``,
    ``list has value``, ``and``, ``or``, ``not``, parentheses. Values of other signs than letters, digits, ``.``, ``-``
    and the like stand in quotes (``'it''s'``, ``"New York"``), columns in backquotes.

    Raises:
        ConditionError: it cannot be read; says where, and what was expected there.
    """
    import pyparsing

    if len(text) > MOST_CHARACTERS:
        raise ConditionError(text[:40] + "...", MOST_CHARACTERS, f"longer than {MOST_CHARACTERS} characters")
    try:
        with _PARSING:
            return Condition(text, _grammar().parse_string(text)[0])
    except pyparsing.ParseBaseException as error:
        rest = text[error.loc :].strip()
        met = f"found {rest[:20]!r}" if rest else "found its end"
        raise ConditionError(text, error.loc, f"{error.msg[:1].lower()}{error.msg[1:]}, {met}") from error
    except RecursionError:
        raise ConditionError(text[:40] + "...", 0, "nested too deeply") from None


@cache
def _grammar() -> Any:
    """Return the grammar; each alternative is told by its first word, so that reading takes linear time."""
    import pyparsing as pp

    def sign(text: str, name: str | None = None) -> Any:
        """Return a sign that leaves nothing behind, named as an error names it."""
        return pp.Suppress(text).set_name(name or f"'{text}'")

    word = {name: pp.CaselessKeyword(name).set_name(f"'{name}'") for name in ("and", "or", "not", "in", "has")}
    reserved = pp.MatchFirst(word.values())
    begin = "a column, 'not' or '('"
    bare = ~reserved + pp.Regex(r"[^\s'\"`(),=!<>]+")
    bare.add_parse_action(lambda text, at, found: Value(found[0], _start(text, at), found[0].lower() == "null"))
    quoted = pp.QuotedString("'", esc_quote="''") | pp.QuotedString('"', esc_quote='""')
    quoted.add_parse_action(lambda text, at, found: Value(found[0], _start(text, at)))
    value = (quoted.set_name("a value") | bare.set_name("a value")).set_name("a value")
    several = sign("(") - value + pp.ZeroOrMore(sign(",") - value) - sign(")", "',' or ')'")
    column = (pp.QuotedString("`") | (~reserved + pp.Regex(r"[^\W\d][\w.-]*"))).set_name(begin)
    compared = pp.MatchFirst([
        *(pp.Literal(each) - value for each in ("!=", "<=", ">=", "=", "<", ">")),
        word["in"] - several,
        word["has"] - value,
        (word["not"] - word["in"] - several).set_parse_action(lambda found: ["not in", *found[2:]]),
    ]).set_name("=, !=, <, <=, >, >=, in, not in or has")  # fmt: skip
    comparison = (column - compared).set_parse_action(_comparison)
    whole, single = pp.Forward(), pp.Forward()
    negated = (pp.CaselessKeyword("not").set_name(begin) - single).set_parse_action(lambda found: Not(found[1]))
    inner = sign("(", begin) - whole - sign(")", "'and', 'or' or ')'")
    single <<= (negated | inner | comparison).set_name(begin)
    both = single + pp.ZeroOrMore(word["and"].suppress() - single)
    either = both.set_parse_action(lambda found: _combined("and", found))
    whole <<= (either + pp.ZeroOrMore(word["or"].suppress() - either)).set_parse_action(
        lambda found: _combined("or", found)
    )
    return whole - pp.StringEnd().set_name("'and', 'or' or the end")


def _start(text: str, place: int) -> int:
    """Return where the next word begins: pyparsing tells the white space before it too."""
    return len(text) - len(text[place:].lstrip())


def _comparison(text: str, at: int, found: Any) -> Node:
    column, sign, *values = found
    place = _start(text, at)
    if sign == "not in":
        return Not(Comparison(column, "in", tuple(values), place))
    return Comparison(column, sign, tuple(values), place)


def _combined(word: Literal["and", "or"], parts: Any) -> Node:
    node: Node = parts[0] if len(parts) == 1 else Combined(word, tuple(parts))
    return node


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds several values a row."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def held_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the single values of a column, out of lists and dictionaries."""
    if is_list(kind):
        return held_type(kind.value_type)
    if pa.types.is_null(kind):  # nothing but missing values, so far
        return pa.string()
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _over(values: pa.Array, test: Callable[[pa.Array], pa.Array], missing_too: bool) -> Mask:
    """Apply a test of single values to the rows of a chunk."""
    if is_list(values.type):
        found, parents = np.zeros(len(values), bool), pc.list_parent_indices(values).to_numpy(zero_copy_only=False)
        found[parents[_over(values.flatten(), test, False)]] = True
        if missing_too:
            some = np.zeros(len(values), bool)
            some[parents] = True
            found |= ~some
        return found
    absent: Mask = values.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_dictionary(values.type):
        hits = np.append(_flags(test(values.dictionary)), False)  # the last is that of missing values
        places = pc.fill_null(values.indices.cast(pa.int64()), len(hits) - 1).to_numpy(zero_copy_only=False)
        found = hits[places]
    else:
        found = _flags(test(values.cast(held_type(values.type))))
    return np.logical_or(found, absent) if missing_too else np.logical_and(found, ~absent)


def _flags(values: pa.Array) -> Mask:
    flags: Mask = values.to_numpy(zero_copy_only=False).astype(bool)
    return flags


def _unknown(name: str, schema: pa.Schema) -> str:
    listed = ", ".join(f"{field.name} (list)" if is_list(field.type) else field.name for field in schema)
    nearest = get_close_matches(name, schema.names, 1)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
    return f"no column '{name}'{hint} The columns are {listed}" if hint else f"no column '{name}'; there are {listed}"
