"""Scores of all responses for a poly-encoder's context, quick and a little wrong, with what they may be off.

All of it is a product of codes and responses (2 m d operations a response) and the codes' attention. It is done in
blocks that stay in the second cache, since m products a response read and written in main memory would cost more than
making them. Two screens differ in the numbers of the product:

- ``float32`` is brute force: the embeddings as they are; off by rounding alone;
- ``bfloat16`` has a copy of the embeddings in half the bytes, and is quick where the CPU has matrix instructions for
  them (AMX, AVX-512 BF16): there it takes a fifth of the time. It is off by about a hundredth of the vectors' lengths.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from g2r_lightning.index.poly_bounds import lengths_of, slack_of

IN_CACHE = 1 << 18  # products that are made at a time: a megabyte
COPIED = 65_536  # rows that are copied at a time


class Screen:
    """Responses, ready to be scored roughly.

    Args:
        vectors: (R, d) float32 or float16.
        dtype: of the products: float32 or bfloat16.
    """

    def __init__(self, vectors: npt.NDArray[np.float32] | npt.NDArray[np.float16], dtype: torch.dtype) -> None:
        given = torch.from_numpy(vectors)
        self.dtype = dtype
        self.vectors = given if dtype == torch.float32 else torch.empty(given.shape, dtype=dtype)
        self.lengths = torch.empty(len(given))
        self.residuals = None if dtype == torch.float32 else torch.empty(len(given))
        for start in range(0, len(given), COPIED):
            some = slice(start, start + COPIED)
            block = given[some].float()
            self.lengths[some] = lengths_of(block)
            if self.residuals is not None:
                self.vectors[some] = block
                self.residuals[some] = lengths_of(block - self.vectors[some].float())

    def scores(self, contexts: list[Tensor], rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return rough scores and what they may be off.

        Args:
            contexts: B of (m, d) float32 codes.
            rows: (n,) int64, which responses; all R where ``None``.

        Returns:
            (B, n) float32 both. A score that is not a number, or infinite, says nothing.
        """
        rounded = [codes.to(self.dtype) for codes in contexts]
        count = len(self.vectors) if rows is None else len(rows)
        scores = torch.empty(len(contexts), count)
        step = max(IN_CACHE // max(map(len, contexts)), 1)
        for start in range(0, count, step):
            end = min(start + step, count)
            block = self.vectors[start:end] if rows is None else self.vectors[rows[start:end]]
            block = block.to(self.dtype)
            for own, codes in zip(scores, rounded, strict=True):
                own[start:end] = attended(block @ codes.T)
        lengths = self.lengths if rows is None else self.lengths[rows]
        residuals = self.residuals if rows is None or self.residuals is None else self.residuals[rows]
        exact = self.residuals is None
        slacks = [slack_of(codes, None if exact else own) for codes, own in zip(contexts, rounded, strict=True)]
        return scores, torch.stack([slack.of(lengths, residuals) for slack in slacks])


def attended(products: Tensor) -> Tensor:
    """Return (n,) float32 scores of (n, m) products: their mean under their own softmax."""
    products = products.float()
    scores: Tensor = torch.linalg.vecdot(torch.softmax(products, dim=1), products)
    return scores
