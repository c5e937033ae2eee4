"""The response index: every answer's vector, and the search for the best ones.

For a bi-encoder, retrieval is a maximum inner product search, done by a FAISS index (any factory string; ``Flat`` is
exact). A poly-encoder's score is no inner product, so it is searched exactly, by its own score in blocked products.
Where faiss is missing (many GPU machines), ``Flat`` is a matrix product too, with the same answers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.metrics import ScoreBlock

Vectors = npt.NDArray[np.float32]
BLOCK = 65_536
EXACT = "Flat"


class ResponseIndex:
    """Responses, their vectors, and an index over them.

    Args:
        texts: R distinct responses.
        sources: who wrote each.
        embeddings: (R, d) float32.
        factory: FAISS factory string for inner products; ``Flat`` is exact search.
        faiss_index: an index that was read from disk; built from the embeddings where ``None``.
        search: FAISS search parameters, ``{"efSearch": 256}`` or ``{"nprobe": 16}``; a stored index has its own.

    Raises:
        G2RError: there are no responses, or a vector is not finite (names its text).
        ConfigError: faiss is missing or does not know the factory string.
    """

    def __init__(
        self,
        texts: Sequence[str],
        sources: Sequence[str],
        embeddings: Vectors,
        factory: str = EXACT,
        faiss_index: Any = None,
        search: Mapping[str, float] | None = None,
    ) -> None:
        if not len(texts):
            raise G2RError("the response set is empty: nothing to answer with")
        if len(texts) != len(sources) or len(texts) != len(embeddings):
            raise G2RError(f"{len(texts)} texts, {len(sources)} sources, {len(embeddings)} vectors: must be as many")
        finite = np.isfinite(embeddings).all(axis=1)
        if not finite.all():
            raise G2RError(f"the vector of the response {texts[int(np.argmin(finite))]!r} is NaN or infinite")
        self.texts = list(texts)
        self.sources = list(sources)
        self.embeddings = embeddings
        self.factory = factory
        self.faiss_index = build_faiss(embeddings, factory, search) if faiss_index is None else faiss_index

    def __len__(self) -> int:
        return len(self.texts)

    def search(self, contexts: Tensor, k: int, score: ScoreBlock) -> tuple[Tensor, Tensor]:
        """Return the k best responses of each context.

        Args:
            contexts: (B, d) float vectors, searched in the index; or (B, m, d) codes, searched by ``score``.
            k: how many; all of them where there are fewer.
            score: the student's scoring of contexts and a block of vectors.

        Returns:
            Scores (B, k) float32 and rows (B, k) int64, best first.
        """
        k, contexts, embeddings = min(k, len(self)), contexts.cpu(), torch.from_numpy(self.embeddings)
        if contexts.ndim != 2 or self.faiss_index is None:
            return best_by_blocks(contexts, embeddings, k, score)
        found = self.faiss_index.search(np.ascontiguousarray(contexts.numpy(), np.float32), k)
        scores, rows = torch.from_numpy(found[0]), torch.from_numpy(found[1])
        short = (rows < 0).any(dim=1)  # the cells that an approximate index visits may hold fewer than k
        if bool(short.any()):
            scores[short], rows[short] = best_by_blocks(contexts[short], embeddings, k, score)
        return scores, rows


def best_by_blocks(contexts: Tensor, responses: Tensor, k: int, score: ScoreBlock) -> tuple[Tensor, Tensor]:
    """Return the exact k best by scoring block after block; memory is (B, block), not (B, R).

    Returns:
        Scores (B, k) float and rows (B, k) int64, best first; ties are in the order of the rows.
    """
    best = contexts.new_full((len(contexts), 0), 0.0)
    rows = torch.zeros(len(contexts), 0, dtype=torch.int64)
    for start in range(0, len(responses), BLOCK):
        block = responses[start : start + BLOCK]
        scores = torch.cat([best, score(contexts, block)], dim=1)
        where = torch.cat([rows, torch.arange(start, start + len(block)).expand(len(contexts), -1)], dim=1)
        order = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :k]
        best, rows = scores.gather(1, order), where.gather(1, order)
    return best, rows


def build_faiss(embeddings: Vectors, factory: str, search: Mapping[str, float] | None = None) -> Any:
    """Return a trained and filled FAISS index, or ``None`` where faiss is missing and the search is exact anyway.

    Args:
        embeddings: (R, d) float32.
        factory: FAISS factory string.
        search: FAISS search parameters by name; they are part of the index, and are saved with it.

    Raises:
        ConfigError: faiss is missing though needed, or refuses the factory string, a search parameter, or the number
            of vectors.
    """
    if importlib.util.find_spec("faiss") is None:
        if factory == EXACT:
            return None
        raise ConfigError(f"index factory {factory!r} needs faiss: pip install faiss-cpu, or use {EXACT!r}")
    import faiss

    try:
        index = faiss.index_factory(embeddings.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        index.train(embeddings)
        index.add(embeddings)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ConfigError(f"faiss cannot build {factory!r} over {len(embeddings)} vectors: {reason}") from error
    settings = ",".join(f"{name}={value}" for name, value in (search or {}).items())
    try:
        if settings:
            faiss.ParameterSpace().set_index_parameters(index, settings)  # type: ignore[arg-type]  # overloaded in C++
    except RuntimeError as error:
        raise ConfigError(
            f"the index {factory!r} has no search parameters {settings}: HNSW knows efSearch, IVF knows nprobe"
        ) from error
    return index
