r"""The poly-encoder: several vectors of the context, and the response chooses among them (Humeau et al. 2019).

1. m *codes* look at the context's token vectors ``h`` and give ``y_1 .. y_m``. With ``learned`` codes ``e_i``,
   ``y_i = sum_j softmax_j(e_i . h_j) h_j``; with ``first``, ``y_i = h_i`` (fewer than m where the context is shorter).
2. The response vector ``c`` looks at the codes: weights ``softmax_i(z)`` with ``z_i = y_i . c``.
3. The score is the dot product of that mix with ``c``. Since the mix is linear, it is
   ``sum_i softmax(z)_i z_i``: the m products are enough, no d-dimensional mix is ever built, and the score never
   exceeds ``max_i z_i`` (which is what lets an inner-product index search for it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from g2r_lightning.student.backbone import Pooling
from g2r_lightning.student.encoders import StudentEncoder

BlockScore = Callable[[Tensor, Tensor, Tensor], Tensor]
Score = TypeVar("Score", bound=Callable[..., Tensor])
SCORE_CHUNK = 1 << 24
_ATTENDING = "_attends_over_codes"


def attending(score: Score) -> Score:
    """Mark a scoring of three-dimensional contexts as :func:`attended_scores`, so that an index may search by codes."""
    setattr(score, _ATTENDING, True)
    return score


def attends(score: Callable[..., Tensor]) -> bool:
    """Whether a scoring of codes is known to be :func:`attended_scores`, and not just any function of them."""
    return bool(getattr(score, _ATTENDING, False))


class PolyEncoder(StudentEncoder):
    """Score a pair by the response's attention over the context's codes.

    Args:
        name_or_path: backbone; this and what follows it as for :class:`StudentEncoder`.
        codes: m, how many vectors a context keeps.
        code_type: ``learned`` codes, or the ``first`` m token vectors.
        score_chunk: largest number of (context, code, response) products held at once while scoring, so that memory
            stays bounded whatever the size of the response set.
    """

    def __init__(
        self,
        name_or_path: str,
        codes: int = 64,
        code_type: Literal["learned", "first"] = "learned",
        shared: bool = True,
        pooling: Pooling = "auto",
        normalise: bool = False,
        output_scale: float = 1.0,
        dropout: float | None = None,
        token_budget: int | None = 2048,
        score_chunk: int = SCORE_CHUNK,
        pretrained: bool = True,
        cached_gradients: bool = False,
        compile_backend: str | None = None,
    ) -> None:
        super().__init__(
            name_or_path, shared, pooling, normalise, output_scale, dropout, token_budget, pretrained, cached_gradients,
            compile_backend,
        )  # fmt: skip
        if codes < 1:
            raise ValueError(f"encoder.codes={codes}: at least 1")
        self.num_codes = codes
        self.code_type = code_type
        self.score_chunk = score_chunk
        self.codes: nn.Parameter | None = None
        if code_type == "learned":
            self.codes = nn.Parameter(torch.empty(codes, self.dimension))
            nn.init.normal_(self.codes, std=self.dimension**-0.5)

    def encode_contexts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (B, m, d) float codes for contexts of (B, L) tokens.

        With ``first``, a context of fewer than m tokens has fewer codes: the missing ones are zero vectors, and
        :meth:`score` passes over zero vectors.
        """

        def run(ids: Tensor, mask: Tensor) -> Tensor:
            """Return (n, m, d) codes of one chunk."""
            return self.pool_codes(self.context_tower(ids, mask), mask)

        codes = self._in_chunks(run, input_ids, attention_mask)
        return self.finish(codes)

    def pool_codes(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Reduce (B, L, d) token vectors of contexts to (B, m, d) codes."""
        return self._attend(hidden, attention_mask) if self.codes is not None else self._first(hidden, attention_mask)

    @attending
    def score(self, contexts: Tensor, responses: Tensor) -> Tensor:
        """Return (B, U) float: ``sum_i softmax(z)_i z_i`` with ``z_i`` the product of code i and response.

        Args:
            contexts: (B, m, d) codes.
            responses: (U, d).
        """
        return attended_scores(contexts, responses, self.score_chunk, self.remembering_little(_attended_score))

    def describe(self) -> dict[str, Any]:
        """Return what a loader must know besides the weights."""
        return {**super().describe(), "codes": self.num_codes, "code_type": self.code_type}

    def _attend(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Let the learned codes (m, d) attend over token vectors (B, L, d); returns (B, m, d)."""
        assert self.codes is not None
        logits = torch.einsum("md,bld->bml", self.codes.to(hidden.dtype), hidden)
        logits = logits.masked_fill(mask.unsqueeze(1) == 0, torch.finfo(logits.dtype).min)
        return torch.softmax(logits, dim=-1) @ hidden

    def _first(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Take the first m token vectors; returns (B, m, d), zero where a context has fewer tokens."""
        kept = nn.functional.pad(hidden * mask.unsqueeze(-1).to(hidden.dtype), (0, 0, 0, self.num_codes))
        return kept[:, : self.num_codes]  # padded first: m codes whatever the length, in an exported graph too


@attending
def attended_scores(
    contexts: Tensor, responses: Tensor, chunk: int = SCORE_CHUNK, score: BlockScore | None = None
) -> Tensor:
    """Return (B, U) float scores of codes and responses; see :meth:`PolyEncoder.score`.

    Args:
        contexts: (B, m, d) codes.
        responses: (U, d).
        chunk: largest number of (context, code, response) products held at once.
        score: how a block is scored where not plainly, see :meth:`StudentEncoder.remembering_little`.
    """
    score = score or _attended_score
    width = max(chunk // max(contexts.shape[0] * contexts.shape[1], 1), 1)
    missing = (contexts == 0).all(dim=-1).unsqueeze(-1)
    blocks = [score(contexts, responses[start : start + width], missing) for start in range(0, len(responses), width)]
    return torch.cat(blocks, dim=1) if blocks else contexts.new_zeros(len(contexts), 0)


def _attended_score(contexts: Tensor, responses: Tensor, missing: Tensor) -> Tensor:
    """Score (B, m, d) codes against a block of (u, d) responses; ``missing`` (B, m, 1) marks codes that are not."""
    z = contexts @ responses.T  # (B, m, u)
    weights = torch.softmax(z.masked_fill(missing, torch.finfo(z.dtype).min), dim=1)
    return (weights * z).sum(dim=1)
