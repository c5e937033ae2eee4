"""The bi-encoder: one vector for the context, one for the response, their dot product as the score.

The response set is one matrix, so retrieval is a maximum inner product search. Kim et al. (2021) use two separate
12-layer towers, mean pooling, outputs times 0.06, no normalisation.
"""

from __future__ import annotations

from torch import Tensor

from g2r_lightning.student.encoders import StudentEncoder


class BiEncoder(StudentEncoder):
    """Score a pair by the dot product of its two vectors."""

    def encode_contexts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (B, d) float for contexts of (B, L) tokens."""

        def run(ids: Tensor, mask: Tensor) -> Tensor:
            """Return (n, d) pooled vectors of one chunk."""
            return self.context_tower.pool(self.context_tower(ids, mask), mask)

        return self.finish(self._in_chunks(run, input_ids, attention_mask))

    def score(self, contexts: Tensor, responses: Tensor) -> Tensor:
        """Return (B, U) float: contexts (B, d) times responses (U, d)."""
        return contexts @ responses.T
