"""Which fields of a response set are kept beside text and source: those that a filter can ask about.

Kept are texts, numbers, truth values, dates and lists of texts (tags). In JSONL every line has its own fields, so a
field is what all its lines say: missing ones are null, whole and broken numbers together are broken ones, and one that
is a text here and a number there is none that can be filtered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa

from g2r_lightning.dialogue.text import half_character
from g2r_lightning.errors import ConfigError

LIST = pa.list_(pa.string())
_WIDER = {frozenset({"a whole number", "a number"}): "a number"}
_TYPES = {
    "a text": pa.string(),
    "a whole number": pa.int64(),
    "a number": pa.float64(),
    "true or false": pa.bool_(),
    "a list of texts": LIST,
}


@dataclass
class FieldKinds:
    """What a JSONL file says of its fields; tell it every record, then ask.

    Args:
        passed_over: fields that are no metadata.
        wanted: the fields to keep; all that can be kept where ``None``.
    """

    passed_over: frozenset[str]
    wanted: Sequence[str] | None = None
    _kinds: dict[str, str | None] = field(default_factory=dict)
    _faults: dict[str, str] = field(default_factory=dict)
    _lists: set[str] = field(default_factory=set)

    def add(self, line: int, record: Mapping[str, Any]) -> None:
        """Look at one record.

        Args:
            line: where it stands, one-based.
            record: field -> value.
        """
        for name, value in record.items():
            if (
                name in self.passed_over
                or name in self._faults
                or (self.wanted is not None and name not in self.wanted)
            ):
                continue
            held, found = self._kinds.get(name), kind_of(value)
            if half_character(name):
                self._faults[name] = f"line {line} names it with half of a character"
            elif value is None or value == []:
                self._kinds.setdefault(name, None)
                self._lists |= {name} if value == [] else set()
            elif found is None:
                self._faults[name] = f"line {line} has {json.dumps(value)[:40]}"
            else:
                wider = found if held in (None, found) else _WIDER.get(frozenset({held, found}))
                self._kinds[name] = wider or held
                if wider is None:
                    self._faults[name] = f"line {line} has {found}, a line before has {held}"

    def schema(self, name: str) -> tuple[pa.Schema, dict[str, str]]:
        """Return the fields to keep, and of those that cannot be kept, why.

        Args:
            name: of the setting that names fields, for the remedy.

        Raises:
            ConfigError: a field that was asked for is in no line, or cannot be kept.
        """
        for wanted in self.wanted or ():
            if wanted in self.passed_over:
                raise ConfigError(f"{name}: '{wanted}' is the response or its source, which are kept anyway")
            if wanted in self._faults:
                raise ConfigError(
                    f"{name}: '{wanted}' cannot be filtered: {self._faults[wanted]}; make its lines alike"
                )
            if wanted not in self._kinds:
                raise ConfigError(f"{name}: no line has a field '{wanted}'")
        kept = [key for key in self._kinds if key not in self._faults]
        unknown = {key: LIST if key in self._lists else pa.string() for key in kept}  # so far all of it is missing
        schema = pa.schema([(key, _TYPES.get(self._kinds[key] or "", unknown[key])) for key in kept])
        return schema, self._faults


def kind_of(value: Any) -> str | None:
    """Return what a JSON value is, in words, or ``None`` for what no filter asks about.

    >>> kind_of(True), kind_of(["a", "b"]), kind_of({})
    ('true or false', 'a list of texts', None)
    """
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return None if half_character(value) else "a text"
    if isinstance(value, int):
        return "a whole number" if -(2**63) <= value < 2**63 else None
    if isinstance(value, float):
        return "a number"
    if isinstance(value, list) and all(isinstance(each, str) and not half_character(each) for each in value):
        return "a list of texts"
    return None


def of_kind(value: Any, kept: pa.DataType) -> Any:
    """Return a JSON value as its column takes it."""
    if value == [] and not pa.types.is_list(kept):
        return None
    return float(value) if value is not None and pa.types.is_floating(kept) else value


def repeated(value: Any, count: int) -> pa.Array | None:
    """Return a column with one value in every row, or ``None`` for what no filter asks about.

    >>> repeated(["a"], 2).to_pylist(), repeated({"a": 1}, 2), repeated(None, 1).type
    ([['a'], ['a']], None, DataType(string))

    Args:
        value: of JSON, or a date.
        count: of rows.
    """
    if value is None:
        return pa.nulls(count, pa.string())
    kind = kind_of(value)
    if kind is not None:
        return pa.array([value] * count, _TYPES[kind])
    return pa.array([value] * count, pa.scalar(value).type) if isinstance(value, date) else None


def kept_type(found: pa.DataType) -> pa.DataType | None:
    """Return the type in which a Parquet column is kept, or ``None`` for one that no filter asks about."""
    types = pa.types
    if types.is_dictionary(found):
        return kept_type(found.value_type)
    if types.is_string(found) or types.is_large_string(found):
        return pa.string()
    if types.is_list(found) or types.is_large_list(found):
        return LIST if kept_type(found.value_type) == pa.string() else None
    if types.is_timestamp(found) and found.unit == "ns":
        return pa.timestamp("us", found.tz)  # as exact as Python's own times, which replies carry
    if types.is_time64(found):
        return pa.time64("us")
    if types.is_float16(found):
        return pa.float32()
    spans = types.is_duration(found) or types.is_interval(found)  # nobody writes those down
    plain = types.is_boolean(found) or types.is_integer(found) or types.is_floating(found) or types.is_temporal(found)
    return found if plain and not spans else None


def parquet_schema(
    found: pa.Schema, passed_over: Iterable[str], wanted: Sequence[str] | None, name: str
) -> tuple[pa.Schema, dict[str, str]]:
    """Return the columns of a Parquet file to keep, and of those that cannot be kept, why; see :class:`FieldKinds`.

    Raises:
        ConfigError: a column that was asked for is not there, or cannot be kept.
    """
    others = [field for field in found if field.name not in set(passed_over)]
    kept = {field.name: kept_type(field.type) for field in others}
    faults = {field.name: f"it is of the type {field.type}" for field in others if kept[field.name] is None}
    for twice in {one.name for one in others if found.names.count(one.name) > 1}:
        kept[twice], faults[twice] = None, "several columns have this name"
    for key in wanted or ():
        if key not in kept:
            raise ConfigError(f"{name}: no column '{key}' beside the responses; it has {', '.join(found.names)}")
        if key in faults:
            raise ConfigError(f"{name}: '{key}' cannot be filtered: {faults[key]}")
    chosen = kept if wanted is None else {key: kept[key] for key in wanted}
    return pa.schema([(key, type_) for key, type_ in chosen.items() if type_ is not None]), faults
