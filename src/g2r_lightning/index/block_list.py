"""Responses that must not be said: whole texts, and regular expressions.

The texts of an index are judged once, into a mask; a query pays nothing. A text is blocked in all its spellings: case,
punctuation and spacing are forgotten. An expression blocks wherever it matches. Words and phrases that no *generated*
reply may hold are dropped when replies are written, by :mod:`g2r_lightning.filters`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from g2r_lightning.dialogue.text import normalised
from g2r_lightning.errors import DataError
from g2r_lightning.filters import Pattern
from g2r_lightning.paths import resolve_path


class BlockedResponses:
    """Tell which responses may be said.

    Args:
        texts: whole responses.
        patterns: expressions in Python's syntax; one match anywhere blocks.
        ignore_case: in the expressions; in texts it always is.
        timeout_s: seconds that an expression may take for one response.

    Raises:
        ConfigError: an expression is invalid or empty.
    """

    def __init__(
        self, texts: Iterable[str] = (), patterns: Iterable[str] = (), ignore_case: bool = True, timeout_s: float = 1.0
    ) -> None:
        self._keys = frozenset(map(normalised, texts))
        self._patterns = [Pattern(each, ignore_case, timeout_s) for each in patterns]

    def __bool__(self) -> bool:
        return bool(self._keys or self._patterns)

    def allows(self, text: str) -> bool:
        """Whether a response may be said.

        Raises:
            ConfigError: an expression takes longer than its timeout.
        """
        if self._keys and normalised(text) in self._keys:
            return False
        return not any(pattern.matches(text, f"the response {text[:60]!r}") for pattern in self._patterns)

    def mask(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return (n,) bool: which of n responses may be said.

        Raises:
            ConfigError: an expression takes longer than its timeout on one of them.
        """
        return np.fromiter(map(self.allows, texts), bool, len(texts))


def read_block_list(file: str | Path) -> tuple[list[str], list[str]]:
    """Read a list of responses, one a line; ``/.../`` is an expression, a line that starts with ``#`` a comment.

    Returns:
        Texts, and expressions.

    Raises:
        DataError: the file is missing, no UTF-8, or lists nothing.
    """
    path = resolve_path(file)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(path, f"{error.strerror}: a block list is a file, one response a line") from error
    except UnicodeDecodeError as error:
        raise DataError(path, f"not UTF-8 ({error.reason} at byte {error.start}): save the list as UTF-8") from error
    lines = [bare for line in content.splitlines() if (bare := line.strip()) and not bare.startswith("#")]
    if not lines:
        raise DataError(path, "lists nothing: a block list has one response, or one /expression/, a line")
    expressions = [line[1:-1] for line in lines if _is_expression(line)]
    return [line for line in lines if not _is_expression(line)], expressions


def _is_expression(line: str) -> bool:
    return len(line) > 2 and line[0] == line[-1] == "/"
