"""What both students share: a context tower, a response tower, and the vectors of a batch in length-sorted chunks.

A retriever must encode a response without knowing the context, so that a response set is encoded once and searched
ever after. The two students differ in what they keep of the context: one vector (bi-encoder) or several (poly-encoder).

More negatives make a better student, and their activations fill the memory. With *cached gradients* (GradCache, Gao et
al. 2021) a step of any size fits:

1. encode chunk after chunk and keep the vectors alone, not what the layers computed on the way;
2. the scores and the loss are made from all vectors, and give the gradient of each vector;
3. encode each chunk once more, with the dropout that it had, and send its vectors' gradients through it.

The loss and its gradient are those of the plain step; a step costs about a third more time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from g2r_lightning.student.backbone import Backbone, Pooling


class Chunk(NamedTuple):
    """Texts that one forward pass sees together.

    Args:
        rows: (n,) int64, their rows in the batch.
        width: tokens that the longest of them has, at least 1; the others are padded to it.
    """

    rows: Tensor
    width: int


def length_chunks(lengths: Tensor, token_budget: int | None) -> Iterator[Chunk]:
    """Cut a batch into chunks of texts of similar length, the longest first.

    >>> [(chunk.rows.tolist(), chunk.width) for chunk in length_chunks(torch.tensor([2, 9, 3, 8]), 18)]
    [([1, 3], 9), ([2, 0], 3)]

    Args:
        lengths: (B,) int64, tokens of each text.
        token_budget: largest number of tokens of a chunk, padding included; a single text may have more. ``None`` makes
            one chunk of all.
    """
    order = torch.argsort(lengths, descending=True, stable=True)
    sizes = lengths[order].tolist()
    start = 0
    while start < len(sizes):
        width = max(sizes[start], 1)
        count = len(sizes) if token_budget is None else max(token_budget // width, 1)
        yield Chunk(order[start : start + count], width)
        start += count


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
        cached_gradients: keep vectors alone and encode each chunk once more in the backward pass; memory then grows
            with ``token_budget``, not with the batch.
        compile_backend: run the towers through ``torch.compile`` with this backend (``inductor``), for shapes of any
            size. Compiling takes a minute or more on a CPU and pays in long runs only.
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
        cached_gradients: bool = False,
        compile_backend: str | None = None,
    ) -> None:
        super().__init__()
        if token_budget is not None and token_budget < 1:
            raise ValueError(f"encoder.token_budget={token_budget}: at least 1, or null for whole batches")
        if not (math.isfinite(output_scale) and output_scale):
            raise ValueError(f"encoder.output_scale={output_scale}: a finite number other than 0")
        if dropout is not None and not 0 <= dropout < 1:
            raise ValueError(f"encoder.dropout={dropout}: from 0 to below 1, or null for the backbone's own")
        self.response_tower = Backbone(name_or_path, pooling, dropout, pretrained)
        self.context_tower = self.response_tower if shared else Backbone(name_or_path, pooling, dropout, pretrained)
        self.name_or_path = name_or_path
        self.normalise = normalise
        self.output_scale = output_scale
        self.token_budget = token_budget
        self.cached_gradients = cached_gradients
        if compile_backend is not None:
            if compile_backend not in torch.compiler.list_backends(exclude_tags=()):
                known = ", ".join(torch.compiler.list_backends())
                raise ValueError(f"encoder.compile_backend={compile_backend}: torch knows {known}")
            for tower in {self.response_tower, self.context_tower}:
                tower.model.compile(backend=compile_backend, dynamic=True)  # in place: the weights keep their names

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
        chunks = list(length_chunks(mask.sum(dim=1), self.token_budget))
        if not chunks:
            return run(ids[:, :1], mask[:, :1])
        run = self.remembering_little(run)
        if len(chunks) == 1:  # as they came, without a copy
            return run(ids[:, : chunks[0].width], mask[:, : chunks[0].width])
        outputs = [run(ids[rows, :width], mask[rows, :width]) for rows, width in chunks]
        return torch.cat(outputs)[torch.argsort(torch.cat([chunk.rows for chunk in chunks]))]

    def remembering_little(self, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return ``run``, with ``cached_gradients`` such that it keeps its inputs alone and is run again for gradients.

        The second run draws the same dropout and has the same precision as the first.
        """
        if self.cached_gradients and torch.is_grad_enabled():
            return partial(checkpoint, run, use_reentrant=False)
        return run

    def describe(self) -> dict[str, Any]:
        """Return what a loader must know besides the weights."""
        return {
            "class": type(self).__name__,
            "shared": self.context_tower is self.response_tower,
            "pooling": self.response_tower.pooling,
            "normalise": self.normalise,
            "output_scale": self.output_scale,
        }
