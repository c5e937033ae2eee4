"""Checked access to the fields of JSON records: a field of the wrong kind is named, never a traceback."""

from __future__ import annotations

import json
from typing import Any


class MalformedError(ValueError):
    """A record that cannot be used; the text says why.

    Args:
        reason: what is wrong with it.
        line: one-based line of the fault, where it is not that of the record.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


def parse_json(line: str) -> Any:
    """Return the JSON value that a line holds.

    Raises:
        MalformedError: it is not JSON; the text says what and where.
    """
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise MalformedError(f"broken JSON: {error.msg} at column {error.colno}") from error
    except (RecursionError, ValueError) as error:  # nested thousands deep, or a number of thousands of digits
        raise MalformedError(f"unreadable JSON: {error}") from error


def as_object(value: Any, name: str) -> dict[str, Any]:
    """Return a JSON object, or raise a :class:`MalformedError` that names it."""
    if not isinstance(value, dict):
        raise MalformedError(f"{name} must be an object, not {_kind(value)}")
    return value


def as_list(value: Any, name: str) -> list[Any]:
    """Return a JSON list, or raise a :class:`MalformedError` that names it."""
    if not isinstance(value, list):
        raise MalformedError(f"{name} must be a list, not {_kind(value)}")
    return value


def as_text(value: Any, name: str) -> str:
    """Return a JSON string, or raise a :class:`MalformedError` that names it."""
    if not isinstance(value, str):
        raise MalformedError(f"{name} must be a string, not {_kind(value)}")
    return value


def as_texts(value: Any, name: str) -> tuple[str, ...]:
    """Return a JSON list of strings as a tuple, or raise a :class:`MalformedError` that names it."""
    return tuple(as_text(item, f"every item of {name}") for item in as_list(value, name))


def _kind(value: Any) -> str:
    names = {type(None): "null or missing", bool: "a boolean", dict: "an object", list: "a list", str: "a string"}
    return names.get(type(value), "a number")
