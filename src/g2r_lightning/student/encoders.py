"""What both students share: a context tower, a response tower, and the vectors of a batch in length-sorted chunks.

A retriever must encode a response without knowing the context, so that a response set is encoded once and searched
ever after. The two students differ in what they keep of the context: one vector (bi-encoder) or several (poly-encoder).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from g2r_lightning.student.backbone import Backbone, Pooling


class StudentEncoder(nn.Module, ABC):
    """Encode contexts and responses, and score every pair.

    Args:
        name_or_path: backbone, see :func:`~g2r_lightning.student.backbone.resolve_encoder`.
        shared: one tower for contexts and responses, or two that start from the same weights (Kim et al. 2021: two).
        pooling: how a text's token vectors become one, see :class:`~g2r_lightning.student.backbone.Backbone`.
        normalise: divide every vector by its length, so that scores are ``scale`` times a cosine.
        output_scale: factor on every tower's output (the authors: 0.06 on unnormalised outputs). With
            ``normalise`` the score is multiplied by its square; a cosine needs about 20 for a usable softmax, so
            set about 4.5.
        dropout: overrides the backbone's.
        token_budget: largest number of tokens, padding included, that one forward pass sees; texts are sorted by
            length into such chunks, so that little padding is computed. ``None`` runs the batch whole.
        pretrained: load the backbone's weights.
    """

    def __init__(
        self,
        name_or_path: str,
        shared: bool = True,
        pooling: Pooling = "auto",
        normalise: bool = False,
        output_scale: float = 1.0,
        dropout: float | None = None,
        token_budget: int | None = 2048,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        if token_budget is not None and token_budget < 1:
            raise ValueError(f"encoder.token_budget={token_budget}: at least 1, or null for whole batches")
        self.response_tower = Backbone(name_or_path, pooling, dropout, pretrained)
        self.context_tower = self.response_tower if shared else Backbone(name_or_path, pooling, dropout, pretrained)
        self.name_or_path = name_or_path
        self.normalise = normalise
        self.output_scale = output_scale
        self.token_budget = token_budget

    @property
    def dimension(self) -> int:
        """Size d of every vector."""
        return self.response_tower.dimension

    @abstractmethod
    def encode_contexts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (B, d) or (B, m, d) float for contexts of (B, L) tokens."""

    @abstractmethod
    def score(self, contexts: Tensor, responses: Tensor) -> Tensor:
        """Return (B, U) float scores of encoded contexts and (U, d) encoded responses."""

    def encode_responses(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (U, d) float for responses of (U, L) tokens."""

        def run(ids: Tensor, mask: Tensor) -> Tensor:
            """Return (n, d) pooled vectors of one chunk."""
            return self.response_tower.pool(self.response_tower(ids, mask), mask)

        return self.finish(self._in_chunks(run, input_ids, attention_mask))

    def forward(self, context_ids: Tensor, context_mask: Tensor, response_ids: Tensor, response_mask: Tensor) -> Tensor:
        """Return (B, U) float scores of every context with every response, in float32 at least."""
        contexts = self.encode_contexts(context_ids, context_mask)
        responses = self.encode_responses(response_ids, response_mask)
        with torch.autocast(contexts.device.type, enabled=False):  # towers may run in bf16, scores never do
            return self.score(contexts, responses)

    def finish(self, vectors: Tensor) -> Tensor:
        """Normalise and scale a tower's output, in float32 whatever the precision of the tower."""
        vectors = vectors.float() if vectors.dtype in (torch.bfloat16, torch.float16) else vectors
        return self.output_scale * (F.normalize(vectors, dim=-1) if self.normalise else vectors)

    def _in_chunks(self, run: Callable[[Tensor, Tensor], Tensor], ids: Tensor, mask: Tensor) -> Tensor:
        """Run texts of similar length together within the token budget; the order of the rows is kept."""
        lengths = mask.sum(dim=1)
        if self.token_budget is None or ids.numel() <= self.token_budget:
            width = max(int(lengths.max()), 1) if len(ids) else 1
            return run(ids[:, :width], mask[:, :width])
        order = torch.argsort(lengths, descending=True, stable=True)
        sizes = lengths[order].tolist()
        outputs, start = [], 0
        while start < len(sizes):
            width = max(sizes[start], 1)
            rows = order[start : start + max(self.token_budget // width, 1)]
            outputs.append(run(ids[rows, :width], mask[rows, :width]))
            start += len(rows)
        return torch.cat(outputs)[torch.argsort(order)]

    def describe(self) -> dict[str, Any]:
        """Return what a loader must know besides the weights."""
        return {
            "class": type(self).__name__,
            "shared": self.context_tower is self.response_tower,
            "pooling": self.response_tower.pooling,
            "normalise": self.normalise,
            "output_scale": self.output_scale,
        }
