"""A folder is made for one plan alone: begun for anything else, it is refused with both values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from g2r_lightning.errors import StoreError
from g2r_lightning.store.json_file import read_json, write_json
from g2r_lightning.store.manifest import MANIFEST, PLAN, differences


def begun(folder: Path, flag: str) -> Mapping[str, Any] | None:
    """Return the plan that an unfinished folder was begun with, ``None`` for a new one.

    Args:
        folder: may be missing.
        flag: that names the folder, for the remedy.

    Raises:
        StoreError: it holds shards, and no plan tells of what.
    """
    if (folder / PLAN).exists():
        return read_json(folder / PLAN)
    stray = next(folder.glob("part-*"), None)
    if stray is not None:
        raise StoreError(
            f"{stray}: a shard without {PLAN} or {MANIFEST}, so nobody knows what it was made from; "
            f"name another place with {flag}, or delete {folder}"
        )
    return None


def claim(
    folder: Path,
    held: Callable[[], Mapping[str, Any] | None],
    wanted: Mapping[str, Any],
    flag: str,
    there: str = "store",
    here: str = "this experiment",
) -> bool:
    """Make a folder ready: new, to be continued, or finished already. What a killed process was writing goes.

    Args:
        folder: is created.
        held: returns the plan that the folder was begun with, or ``None`` for a new one.
        wanted: the plan of today.
        flag: that names the folder, for the remedy.
        there: what the folder is called in the message.
        here: what asks for it.

    Returns:
        Whether the folder is new.

    Raises:
        StoreError: the folder cannot be made, or was begun for something else (names both values).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot make this folder ({error.strerror}); choose another {flag}") from error
    found = held()
    lines = [] if found is None else differences(found, wanted, there, here)
    if lines:
        listed = "\n  ".join(lines)
        raise StoreError(
            f"{folder}: made for something else:\n  {listed}\n"
            f"Name another place with {flag}, or delete {folder} to make it anew"
        )
    for leftover in folder.glob("*.tmp"):
        leftover.unlink()
    if found is None:
        write_json(folder / PLAN, wanted)
    return found is None
