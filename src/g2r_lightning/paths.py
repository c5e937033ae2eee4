"""Where things are: files that ship inside the package, and files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

PACKAGE_PREFIX = "package:"


def resolve_path(path: str | Path) -> Path:
    """Return the path, with ``package:sample/...`` pointing into the installed package.

    >>> resolve_path("package:sample").name
    'sample'
    """
    text = str(path)
    if text.startswith(PACKAGE_PREFIX):
        return Path(str(resources.files("g2r_lightning"))) / text.removeprefix(PACKAGE_PREFIX)
    return Path(text).expanduser()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour of ``path`` to write to; it takes the name when the block ends without an error.

    The bytes are on disk before the name is, so a power cut leaves either the old file or the whole new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
