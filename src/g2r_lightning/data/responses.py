"""The response set: every distinct reply that a retriever may answer with."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from g2r_lightning.dialogue import ORIGINAL, text_key


class ResponseSet:
    """Distinct responses in order of first appearance, with the source that brought each first.

    Args:
        key: identity of a text; two texts of one key are one response.
    """

    def __init__(self, key: Callable[[str], str] = text_key) -> None:
        self._key = key
        self._rows: dict[str, int] = {}
        self.texts: list[str] = []
        self.sources: list[str] = []

    def __len__(self) -> int:
        return len(self.texts)

    def add(self, text: str, source: str = ORIGINAL) -> int:
        """Return the row of a text, adding it where it is new; a human's reply keeps that source."""
        key = self._key(text)
        row = self._rows.setdefault(key, len(self.texts))
        if row == len(self.texts):
            self.texts.append(text)
            self.sources.append(source)
        elif source == ORIGINAL:
            self.sources[row] = ORIGINAL
        return row

    def extend(self, texts: Iterable[str], source: str = ORIGINAL) -> None:
        """Add many texts of one source."""
        for text in texts:
            self.add(text, source)

    def find(self, text: str) -> int | None:
        """Return the row of a text, or ``None``."""
        return self._rows.get(self._key(text))

    def keys(self) -> list[str]:
        """Return the identities, row by row."""
        return list(self._rows)

    def copy(self) -> ResponseSet:
        """Return an independent copy that can grow."""
        other = ResponseSet(self._key)
        other._rows, other.texts, other.sources = dict(self._rows), list(self.texts), list(self.sources)
        return other
