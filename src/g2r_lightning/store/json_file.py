"""JSON objects on disk: whole or not there, readable by people, and named when they are broken.

A file ends with the checksum of what stands before it: a digit that changed would pass for another number. Files
without one (of earlier releases, or edited by hand and the line taken out) are read as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from g2r_lightning.errors import StoreError
from g2r_lightning.paths import atomic_path

SEAL = "sha256_of_the_above"


def write_json(path: Path, record: Mapping[str, Any], seal: bool = True) -> None:
    """Write a JSON object with its checksum; it replaces what was there in one step.

    Args:
        path: the file.
        record: what it holds.
        seal: add the checksum; another library's files have no room for it.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not know.
    """
    text = sealed(record) if seal else json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode())


def read_json(path: Path, remedy: str = "delete its folder and make it again") -> dict[str, Any]:
    """Read a JSON object; its checksum is compared, and left out.

    Args:
        path: the file.
        remedy: what to do where it is broken.

    Raises:
        StoreError: it is none, or is not as it was written.
    """
    try:
        return unsealed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: unreadable ({error}); {remedy}") from error


def sealed(record: Mapping[str, Any]) -> str:
    """Return a JSON object as text that ends with its checksum."""
    plain = json.loads(json.dumps({key: value for key, value in record.items() if key != SEAL}, allow_nan=False))
    return json.dumps({**plain, SEAL: _checksum(plain)}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def unsealed(text: str) -> dict[str, Any]:
    """Return what :func:`sealed` was given, after a look at the checksum, where there is one.

    Raises:
        ValueError: it is no JSON object, or is not as it was written.
    """
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - as for any other text
    seal = record.pop(SEAL, None)
    if seal is not None and seal != _checksum(record):
        raise ValueError(f"changed since it was written; if that was on purpose, take out {SEAL!r}")
    strange = [key for key in record if len(key) == len(SEAL) and sum(map(str.__ne__, key, SEAL)) == 1]
    if seal is None and strange:
        raise ValueError(f"changed since it was written: {strange[0]!r}")
    return record


def _checksum(record: Mapping[str, Any]) -> str:
    """Return the hash of what a record holds, however it is spaced or ordered."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, allow_nan=False).encode()).hexdigest()
