"""Bytes as people read them, and the folder that a place on the disk would lie in."""

from __future__ import annotations

from pathlib import Path

GB = 10**9


def size(count: float) -> str:
    """Return bytes as people read them.

    >>> size(3_400_000_000), size(512)
    ('3.4 GB', '512 bytes')
    """
    for unit, one in (("GB", GB), ("MB", 10**6), ("kB", 10**3)):
        if count >= one:
            return f"{count / one:,.1f} {unit}"
    return f"{count:.0f} bytes"


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
