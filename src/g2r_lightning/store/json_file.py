"""JSON objects on disk: whole or not there, readable by people, and named when they are broken."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from g2r_lightning.errors import StoreError
from g2r_lightning.paths import atomic_path


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object; it replaces what was there in one step.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not know.
    """
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_bytes(f"{text}\n".encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        StoreError: it is none.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: unreadable ({error}); delete its folder and make it again") from error
    if not isinstance(record, dict):
        raise StoreError(f"{path}: not a JSON object; delete its folder and make it again")
    return record
