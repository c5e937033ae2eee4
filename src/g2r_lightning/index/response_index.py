"""The response index: every answer's vector, and the search for the best ones.

For a bi-encoder, retrieval is a maximum inner product search. ``Flat`` is exact: FAISS reads all vectors. Any other
factory string makes an index that reads fewer of them, or coarser ones; it is asked for ``refine`` times as many rows
as are wanted, which are then scored by their own vectors. So **scores are always the student's own**, and what an
approximate index can get wrong is which rows it finds.

A poly-encoder's score is no inner product of two vectors; :mod:`poly_search` searches it by its codes and proves the
answer, and the FAISS index is not asked. Where faiss is missing (many GPU machines), ``Flat`` is a matrix product too,
with the same answers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index.columns import TextColumn, joined_table
from g2r_lightning.index.faiss_search import (
    REFINE,
    FlatSearch,
    Keep,
    Rows,
    check_search,
    found_rows,
    set_search,
    threads_for,
)
from g2r_lightning.index.poly_search import CodeSearch
from g2r_lightning.metrics import ScoreBlock
from g2r_lightning.student.poly_encoder import attends

Vectors = npt.NDArray[np.float32] | npt.NDArray[np.float16]
BLOCK = 65_536
EXACT = "Flat"
EXACT_KEPT = 20_000  # kept rows that FAISS scores one by one in about the time that an index takes
BATCH = 20  # queries from which on matrix products beat FAISS's rows one by one; its own limit where all rows are kept
GATHERED = 1 << 24  # numbers of the vectors that are rescored at a time: 64 MiB


class ResponseIndex:
    """Responses, their vectors, and an index over them.

    Args:
        texts: R distinct responses.
        sources: who wrote each.
        embeddings: (R, d) float32, or float16 as an index may keep them on disk.
        factory: FAISS factory string for inner products; ``Flat`` is exact search.
        faiss_index: an index that was read from disk; built from the embeddings where ``None``.
        search: FAISS search parameters, ``{"efSearch": 256}`` or ``{"nprobe": 16}``, and ``refine``: how many times k
            rows are found and scored anew. What is not named stays as the index has it.
        metadata: what else is told of each response, R rows; see :attr:`table`.
        checked: the embeddings are known to be finite, so that they need not be read.

    Raises:
        G2RError: there are no responses, or a vector is not finite (names its text).
        ConfigError: faiss is missing or does not know the factory string or a search parameter.
    """

    def __init__(
        self,
        texts: Sequence[str],
        sources: Sequence[str],
        embeddings: Vectors,
        factory: str = EXACT,
        faiss_index: Any = None,
        search: Mapping[str, float] | None = None,
        metadata: pa.Table | None = None,
        checked: bool = False,
    ) -> None:
        if not len(texts):
            raise G2RError("the response set is empty: nothing to answer with")
        if len(texts) != len(sources) or len(texts) != len(embeddings):
            raise G2RError(f"{len(texts)} texts, {len(sources)} sources, {len(embeddings)} vectors: must be as many")
        if not checked:
            row = first_not_finite(embeddings)
            if row is not None:
                raise G2RError(f"the vector of the response {texts[row]!r} is NaN or infinite")
        self.texts, self.sources = _kept(texts), _kept(sources)
        self.metadata = metadata
        self.embeddings = embeddings
        self.factory = factory
        self.search_parameters: dict[str, float] = {}
        self.faiss_index = build_faiss(embeddings, factory) if faiss_index is None else faiss_index
        self._flat = self.faiss_index if factory == EXACT else flat_search(embeddings)
        self._codes: CodeSearch | None = None
        self.set_search(search or {})

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def exact(self) -> bool:
        """Whether every search looks at every vector."""
        return self.factory == EXACT or self.faiss_index is None

    @property
    def codes(self) -> CodeSearch:
        """The search by a poly-encoder's codes, with its counts; of the present embeddings, whichever were before."""
        if self._codes is None or self._codes.vectors is not self.embeddings:
            self._codes = CodeSearch(self.embeddings)
        return self._codes

    @property
    def table(self) -> pa.Table:
        """All that is told of the responses, a row each: ``text``, ``source``, then the metadata's columns."""
        return joined_table(self.texts, self.sources, self.metadata)

    def set_search(self, search: Mapping[str, float]) -> None:
        """Change search parameters; those that are not named stay.

        Raises:
            ConfigError: the index has no such parameter, or none of this value.
        """
        check_search(search)
        if self.faiss_index is not None:
            set_search(self.faiss_index, self.factory, search)
        self.search_parameters = {**self.search_parameters, **search}

    def search(
        self, contexts: Tensor, k: int, score: ScoreBlock, keep: Keep | None = None, exact: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return the k best responses of each context.

        Args:
            contexts: (B, d) float vectors, searched in the index; or (B, m, d) codes, searched by :attr:`codes` where
                ``score`` is a poly-encoder's, else by ``score`` itself.
            k: how many; all of them where there are fewer.
            score: the student's scoring of contexts and a block of vectors.
            keep: (R,) bool, the rows that may be returned; all of them where ``None``.
            exact: prove the answer of a poly-encoder; else one round alone. Of a bi-encoder, the index decides.

        Returns:
            Scores (B, k) float32 and rows (B, k) int64, best first; k is the number of kept rows where that is smaller.

        Raises:
            G2RError: a context's vector is NaN or infinite, which would be answered with anything.
            ValueError: ``keep`` is of another length.
        """
        if keep is not None and keep.shape != (len(self),):
            raise ValueError(f"keep has the shape {keep.shape}, the index {len(self)} responses")
        kept = len(self) if keep is None else int(np.count_nonzero(keep))
        k, contexts = min(k, kept), contexts.cpu()
        bad = _not_finite(contexts)
        if len(bad):
            raise G2RError(
                f"the vector of context {bad[0] + 1} of {len(contexts)} is NaN or infinite: the student's weights "
                "are damaged or overflow; take another checkpoint, or --trainer.precision=32-true"
            )
        keep = None if kept == len(self) else keep
        if contexts.ndim == 3 and attends(score):
            return self.codes.search(contexts, k, keep, exact)
        if contexts.ndim != 2 or self.faiss_index is None or not k or not len(contexts):
            return best_by_blocks(contexts, torch.from_numpy(self.embeddings), k, score, keep)
        queries = np.ascontiguousarray(contexts.numpy(), np.float32)
        if self.exact or (keep is not None and kept <= EXACT_KEPT):
            return self._exactly(queries, k, score, keep)
        count = min(k * int(self.search_parameters.get(REFINE, 1)), kept)
        scores, rows = self._rescored(queries, found_rows(self.faiss_index, queries, count, keep), k)
        short = (rows < 0).any(axis=1)  # what an approximate index visits may hold fewer than k
        found = torch.from_numpy(scores), torch.from_numpy(rows)
        if short.any():
            where = torch.from_numpy(short)
            found[0][where], found[1][where] = self._exactly(queries[short], k, score, keep)
        return found

    def _exactly(
        self, queries: npt.NDArray[np.float32], k: int, score: ScoreBlock, keep: Keep | None
    ) -> tuple[Tensor, Tensor]:
        if self._flat is None or (keep is not None and len(queries) >= BATCH):
            return best_by_blocks(torch.from_numpy(queries), torch.from_numpy(self.embeddings), k, score, keep)
        import faiss

        bits = None if keep is None else np.packbits(keep, bitorder="little")
        params = None if bits is None else faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        with threads_for(len(queries)):
            scores, rows = self._flat.search(queries, k, params=params)
        return torch.from_numpy(scores), torch.from_numpy(rows)

    def _rescored(self, queries: npt.NDArray[np.float32], rows: Rows, k: int) -> tuple[npt.NDArray[np.float32], Rows]:
        """Return the k best of some rows by their own vectors: scores (B, k), -inf for row -1, and rows (B, k)."""
        scores = np.empty(rows.shape, np.float32)
        all_vectors = np.asarray(self.embeddings)  # of a memory map: the same memory, without the class's overhead
        step = max(GATHERED // max(rows.shape[1] * queries.shape[1], 1), 1)
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            vectors = all_vectors[rows[some]].astype(np.float32, copy=False)  # (n, count, d)
            scores[some] = (vectors @ queries[some, :, None])[:, :, 0]
        scores[rows < 0] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)


def _not_finite(contexts: Tensor) -> list[int]:
    """Return which rows hold NaN or infinity; by NumPy, which is quicker than torch for a single row."""
    if not len(contexts):
        return []
    finite = np.isfinite(contexts.detach().float().numpy().reshape(len(contexts), -1)).all(axis=1)
    return [int(row) for row in np.flatnonzero(~finite)]


def _kept(texts: Sequence[str]) -> Sequence[str]:
    return texts if isinstance(texts, TextColumn) else list(texts)


def best_by_blocks(
    contexts: Tensor, responses: Tensor, k: int, score: ScoreBlock, keep: Keep | None = None
) -> tuple[Tensor, Tensor]:
    """Return the exact k best by scoring block after block; memory is (B, block), not (B, R).

    Args:
        contexts: (B, ...) encoded contexts.
        responses: (R, d) vectors; half precision is scored in float32.
        k: how many.
        score: the student's scoring of contexts and a block of vectors.
        keep: (R,) bool, the rows that are scored; all of them where ``None``.

    Returns:
        Scores (B, k) float and rows (B, k) int64, best first; ties are in the order of the rows.
    """
    best = contexts.new_full((len(contexts), 0), 0.0)
    rows = torch.zeros(len(contexts), 0, dtype=torch.int64)
    for start in range(0, len(responses), BLOCK):
        block, own = responses[start : start + BLOCK], torch.arange(start, min(start + BLOCK, len(responses)))
        if keep is not None:
            kept = torch.from_numpy(np.flatnonzero(keep[start : start + BLOCK]))
            if not len(kept):
                continue
            block, own = block[kept], own[kept]
        block = block.float() if block.dtype == torch.float16 else block
        scores = torch.cat([best, score(contexts, block)], dim=1)
        where = torch.cat([rows, own.expand(len(contexts), -1)], dim=1)
        order = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :k]
        best, rows = scores.gather(1, order), where.gather(1, order)
    return best, rows


def build_faiss(embeddings: Vectors, factory: str, search: Mapping[str, float] | None = None) -> Any:
    """Return a trained and filled FAISS index, or ``None`` where faiss is missing and the search is exact anyway.

    Args:
        embeddings: (R, d) float32 or float16.
        factory: FAISS factory string; ``Flat`` gives a :class:`~g2r_lightning.index.faiss_search.FlatSearch`.
        search: FAISS search parameters by name; they are part of the index, and are saved with it.

    Raises:
        ConfigError: faiss is missing though needed, or refuses the factory string, a search parameter, or the number
            of vectors.
    """
    if importlib.util.find_spec("faiss") is None:
        if factory == EXACT:
            return None
        raise ConfigError(f"index factory {factory!r} needs faiss: pip install faiss-cpu, or use {EXACT!r}")
    if factory == EXACT:
        return flat_search(embeddings)
    import faiss

    try:
        index = faiss.index_factory(embeddings.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        vectors = np.asarray(embeddings, np.float32)
        index.train(vectors)
        index.add(vectors)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ConfigError(f"faiss cannot build {factory!r} over {len(embeddings)} vectors: {reason}") from error
    set_search(index, factory, search or {})
    return index


def flat_search(embeddings: Vectors) -> FlatSearch | None:
    """Return FAISS's exact search of these vectors; ``None`` where faiss is missing or they are no float32."""
    if importlib.util.find_spec("faiss") is None or embeddings.dtype != np.float32:
        return None
    return FlatSearch(embeddings)  # type: ignore[arg-type]  # float32, as was just asked


def first_not_finite(embeddings: Vectors) -> int | None:
    """Return the first row with a number that is NaN or infinite, or ``None``; reads block after block."""
    for start in range(0, len(embeddings), BLOCK):
        finite = np.isfinite(embeddings[start : start + BLOCK]).all(axis=1)
        if not finite.all():
            return start + int(np.argmin(finite))
    return None
