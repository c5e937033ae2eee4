"""An index whose set changes without being built again: the rows that were built, and what was changed since.

1. The built rows keep their numbers 0 to R - 1; added responses follow as rows R, R + 1, ... in the order in which they
   came. A removed row keeps its number and is never found again; a text that comes back is a new row.
2. A search asks the built index for its best among the rows that are left, scores all added rows exactly, and merges
   both by a total order: the higher score, then the lower row. That is what an exact index of the remaining texts, in
   the order of their rows, finds.
3. A :class:`LiveIndex` never changes: a reader that holds one has one view of the set, and takes the next one by
   :func:`load_live`, which reads the built part again only where that is another (after ``compact``).
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from g2r_lightning.errors import G2RError, StoreError
from g2r_lightning.index.columns import TextColumn
from g2r_lightning.index.folder import load_responses
from g2r_lightning.index.journal import Change, identity, read_changes
from g2r_lightning.index.poly_search import CodeSearch
from g2r_lightning.index.response_index import ResponseIndex, best_by_blocks
from g2r_lightning.metrics import ScoreBlock
from g2r_lightning.student.poly_encoder import attends

Mask = npt.NDArray[np.bool_]
Found = TypeVar("Found")
PAUSES = (0.02, 0.05, 0.1, 0.2)
"""Seconds to wait before a folder that is being replaced is looked at again."""


class Version(NamedTuple):
    """Which state of a set: equal versions have equal answers.

    Args:
        base: identity of the built index.
        changes: how many changes were made since.
        last: id of the last of them.
    """

    base: str
    changes: int
    last: str


class LiveIndex:
    """A built index with the changes that were made since.

    Args:
        base: the index as it was built, R rows.
        table: A added responses, columns as those of the base; ``None`` for none.
        vectors: (A, d) float32 of them.
        removed: rows that are gone, of 0 to R + A - 1.
        version: which state this is.
    """

    def __init__(
        self,
        base: ResponseIndex,
        table: pa.Table | None = None,
        vectors: npt.NDArray[np.float32] | None = None,
        removed: npt.NDArray[np.int64] | None = None,
        version: Version | None = None,
    ) -> None:
        self.base = base
        self.version = version
        self.added = np.zeros((0, base.embeddings.shape[1]), np.float32) if vectors is None else vectors
        self._added_codes = CodeSearch(self.added)
        self.table: pa.Table = base.table if table is None else together([base.table, table])
        self.texts: Sequence[str] = base.texts
        self.sources: Sequence[str] = base.sources
        if table is not None:
            self.texts = Joined(base.texts, TextColumn(table["text"]))
            self.sources = Joined(base.sources, TextColumn(table["source"]))
        self.alive: Mask = np.ones(len(self.texts), bool)
        if removed is not None:
            self.alive[removed] = False
        self._gone = bool(not self.alive.all())

    def __len__(self) -> int:
        """Return how many responses can be answered with."""
        return int(self.alive.sum())

    def vectors(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the (n, d) float32 vectors of n rows."""
        built = rows < len(self.base)
        found = np.empty((len(rows), self.added.shape[1]), np.float32)
        found[built] = self.base.embeddings[rows[built]]
        found[~built] = self.added[rows[~built] - len(self.base)]
        return found

    def pieces(self, size: int = 65_536) -> Iterator[tuple[pa.Table, npt.NDArray[np.float32]]]:
        """Yield what is left, some rows at a time: n rows of :attr:`table`, and their (n, d) vectors."""
        rows = np.flatnonzero(self.alive)
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            yield self.table.slice(some[0], some[-1] + 1 - some[0]).take(some - some[0]), self.vectors(some)

    @property
    def codes(self) -> CodeSearch:
        """The search of the built responses by codes, with its counts; the added ones, few, are counted apart."""
        return self.base.codes

    def search(
        self, contexts: Tensor, k: int, score: ScoreBlock, keep: Mask | None = None, exact: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return the k best of the responses that are left; see :meth:`ResponseIndex.search`.

        Args:
            contexts: (B, d) or (B, m, d) encoded contexts.
            k: how many.
            score: the student's scoring.
            keep: (R + A,) bool, the rows that may be returned.
            exact: prove the answer of a poly-encoder.

        Returns:
            Scores (B, k) float32 and rows (B, k) int64, the best first, equal scores by row.
        """
        kept = self.alive if keep is None else keep & self.alive
        whole = keep is None and not self._gone
        size = len(self.base)
        built = self.base.search(contexts, k, score, None if whole else kept[:size], exact)
        if not len(self.added):
            return built
        contexts, left = contexts.cpu(), None if whole else kept[size:]
        if contexts.ndim == 3 and attends(score):
            scores, rows = self._added_codes.search(contexts, k, left, exact)
        else:
            scores, rows = best_by_blocks(contexts, torch.from_numpy(self.added), k, score, left)
        return merged([built, (scores, rows + size)], k)


def merged(parts: Sequence[tuple[Tensor, Tensor]], k: int) -> tuple[Tensor, Tensor]:
    """Return the k best of several lists: the highest scores, the lower row of two that are equal.

    Args:
        parts: scores (B, n) and rows (B, n) each, no row in two of them.
        k: how many.
    """
    scores, rows = torch.cat([part[0] for part in parts], dim=1), torch.cat([part[1] for part in parts], dim=1)
    by_row = torch.argsort(rows, dim=1)
    scores, rows = scores.gather(1, by_row), rows.gather(1, by_row)
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :k]
    return scores.gather(1, order), rows.gather(1, order)


def together(tables: Sequence[pa.Table]) -> pa.Table:
    """Return tables as one, a column that one of them lacks being missing there; nothing is copied."""
    return pa.concat_tables(tables, promote_options="default")


class Joined(Sequence[str]):
    """Several lists as one, none of them copied.

    >>> joined = Joined(["a", "b"], [], ["c"])
    >>> joined[2], joined[-3], list(joined), joined[1:]
    ('c', 'a', ['a', 'b', 'c'], ['b', 'c'])
    """

    def __init__(self, *parts: Sequence[str]) -> None:
        self._parts = [part for part in parts if len(part)]
        self._ends = list(accumulate(map(len, self._parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        """Return one text, or a list of them."""
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        row = place + len(self) if place < 0 else place
        if not 0 <= row < len(self):
            raise IndexError(f"row {place} of {len(self)}")
        part = bisect_right(self._ends, row)
        return self._parts[part][row - (self._ends[part - 1] if part else 0)]

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            yield from part


def load_live(folder: Path, known: LiveIndex | None = None) -> LiveIndex:
    """Read an index and its changes.

    Args:
        folder: of the index.
        known: a view that was read before: it is returned where nothing changed, and its built part is used again where
            only that is the same.

    Raises:
        G2RError: there is no index, or it is damaged, or a change of it is.
    """
    return consistently(folder, lambda: _read(folder, known))


def version_of(folder: Path) -> Version:
    """Return which state of its set a folder has now; cheap, so that a server can ask every few seconds.

    Raises:
        G2RError: there is no index, or a change of it is damaged.
    """
    return consistently(folder, lambda: _version(folder)[0])


def consistently(folder: Path, read: Callable[[], Found]) -> Found:
    """Read from an index that another process may be replacing: all of it before, or all of it after.

    Raises:
        G2RError: what reading raises of a folder that stays as it is.
    """
    for pause in PAUSES:
        before = _present(folder)
        try:
            found = read()
        except G2RError:
            if before is not None and _present(folder) == before:
                raise
        else:
            if before is not None and _present(folder) == before:
                return found
        time.sleep(pause)
    return read()


def _read(folder: Path, known: LiveIndex | None) -> LiveIndex:
    version, changes = _version(folder)
    if known is not None and known.version == version:
        return known
    same = known is not None and known.version is not None and known.version.base == version.base
    base = known.base if known is not None and same else load_responses(folder)
    added = [change for change in changes if change.adds]
    removed = [change.removed() for change in changes if not change.adds]
    live = LiveIndex(
        base,
        together([change.table() for change in added]) if added else None,
        np.concatenate([change.vectors() for change in added]) if added else None,
        np.concatenate(removed) if removed else None,
        version,
    )
    if live.added.shape != (len(live.texts) - len(base), base.embeddings.shape[1]):
        raise StoreError(f"{folder}: {len(live.texts) - len(base)} added texts, vectors of shape {live.added.shape}")
    return live


def _version(folder: Path) -> tuple[Version, list[Change]]:
    base = identity(folder)
    changes = read_changes(folder, base)
    return Version(base, len(changes), changes[-1].facts["id"] if changes else ""), changes


def _present(folder: Path) -> str | None:
    try:
        return identity(folder)
    except G2RError:
        return None
