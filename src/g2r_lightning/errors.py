"""Errors for the person at the keyboard: what was wrong, where, and what to do about it.

Every failure that a user can cause is a :class:`G2RError`; the command line prints its text without a traceback
and exits with status 2. Everything else is a defect of this package and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path


class G2RError(Exception):
    """What was wrong, where (file and line, flag or key), and the remedy."""


class DataError(G2RError):
    """A file of dialogues cannot be used.

    Args:
        path: the file.
        reason: what is wrong with it, and what to do.
        line: one-based line of the fault; ``None`` where the whole file is meant.
    """

    def __init__(self, path: str | Path, reason: str, line: int | None = None) -> None:
        super().__init__(f"{path}:{line}: {reason}" if line else f"{path}: {reason}")
        self.path, self.reason, self.line = Path(path), reason, line


class StoreError(G2RError):
    """A candidate store is missing, damaged, or was made for something else."""


class ConfigError(G2RError):
    """A setting is unknown or does not fit the others."""
