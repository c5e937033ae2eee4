"""What a model gets to see of one step: typed batches of tensors."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class CandidateBatch(NamedTuple):
    """One training step: B contexts, the U distinct responses that concern them, and who is what to whom.

    Where W processes share a step, each has its own contexts, and encodes its own share of the responses of all: R of
    them, equally many on every process. The vectors of all W * R are gathered, and ``places`` finds the U among them.

    Args:
        context_ids: (B, Lc) int64 token ids.
        context_mask: (B, Lc) int64, 1 for tokens.
        response_ids: (R, Lr) int64 token ids of the responses to encode: the U themselves in one process.
        response_mask: (R, Lr) int64.
        positives: (B, U) bool, enter the cross-entropy; own candidates are the first columns, then come the shared
            random negatives.
        candidates: (B, U) bool, enter the score transfer.
        negatives: (B, U) bool.
        teacher_scores: (B, U) float32, natural log, NaN outside ``candidates``; ``None`` without a teacher.
        examples: (B,) int64, index of each context's example in the training set.
        places: (U,) int64, row of each column's vector among the gathered ones; ``None`` in one process.
    """

    context_ids: Tensor
    context_mask: Tensor
    response_ids: Tensor
    response_mask: Tensor
    positives: Tensor
    candidates: Tensor
    negatives: Tensor
    teacher_scores: Tensor | None
    examples: Tensor
    places: Tensor | None = None


class EvaluationBatch(NamedTuple):
    """Contexts to be answered.

    Args:
        context_ids: (B, Lc) int64 token ids.
        context_mask: (B, Lc) int64, 1 for tokens.
        examples: (B,) int64, index of each context's example in its set.
    """

    context_ids: Tensor
    context_mask: Tensor
    examples: Tensor
