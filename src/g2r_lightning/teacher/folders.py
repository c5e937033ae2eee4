"""Folders that appear whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into, which takes the place of ``folder`` when the block ends well.

    Whoever looks sees the old content or the new, but for the instant between two renames; a block that raises
    leaves the old content as it was.
    """
    mark = uuid.uuid4().hex[:8]
    fresh = folder.with_name(f".{folder.name}-new-{mark}")
    old = folder.with_name(f".{folder.name}-old-{mark}")
    fresh.mkdir(parents=True)
    try:
        yield fresh
        if folder.exists():
            folder.replace(old)
        fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
