r"""The G2R loss: learn which reply fits (cross-entropy), and how well the teacher thought of each (score transfer).

For the scores ``s`` of one context with its own candidates ``R`` and negatives ``N`` (Kim et al. 2021):

1. **Response selection.** Every positive ``r`` is set against the negatives alone:
   ``CE = mean over positives of -log( exp s(r) / (exp s(r) + sum over n in N of exp s(n)) )``.
2. **Score transfer.** The teacher's scores ``t`` of the candidates become a distribution ``q = softmax(t / T)`` over
   ``R`` (zero on ``N``); the student's is ``p = softmax(s)`` over ``R`` and ``N`` together, without a temperature:
   ``KD = -sum over R of q log p``, which is ``KL(q || p)`` plus the constant entropy ``H(q)``.
3. **Together.** ``(1 - alpha) CE + alpha KD``; alpha = 0.1 is model-level G2R, alpha = 0 is data-level G2R.

The functions see one matrix ``scores (B, U)`` over the U distinct responses of a step, and boolean masks of its shape.
What is in no mask does not exist for that row, so every negative scheme is a way to fill the masks. Where several
processes share a step, each sees its own rows, and divides by counts of the whole step that it is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class G2RLossOutput:
    """The loss and its terms, all scalars in natural-log units (nats).

    Args:
        total: what is minimised.
        cross_entropy: mean over all positives of the step.
        score_transfer: mean over contexts of ``-sum q log p``; 0 where no teacher scores were given.
        kl: the same without the constant part, ``KL(q || p)``; never negative up to rounding.
        teacher_entropy: mean ``H(q)``; near log |R| the teacher says nothing, near 0 it names one reply.
    """

    total: Tensor
    cross_entropy: Tensor
    score_transfer: Tensor
    kl: Tensor
    teacher_entropy: Tensor


def response_selection(
    scores: Tensor, positives: Tensor, negatives: Tensor, positive_count: Tensor | None = None
) -> Tensor:
    """Cross-entropy of every positive against the negatives of its row alone.

    Args:
        scores: (B, U) float, student score of context b and response u.
        positives: (B, U) bool.
        negatives: (B, U) bool.
        positive_count: scalar above 0, what the sum over positives is divided by; how many there are unless told.

    Returns:
        Scalar: mean over all positives of ``softplus(logsumexp(negatives) - s)``. A row without negatives counts with
        a loss of 0 and receives no gradient; without any positive the result is 0.
    """
    has_negatives = negatives.any(dim=1, keepdim=True)
    # Rows without negatives get a finite stand-in first: logsumexp of an empty row has NaN gradients.
    safe = torch.where(negatives, scores, -torch.inf).masked_fill(~has_negatives, 0.0)
    log_negatives = torch.logsumexp(safe, dim=1, keepdim=True)
    counted = positives & has_negatives
    # torch's own threshold of 20 lets go of exp(-20), which float64 still sees
    losses = F.softplus(torch.where(counted, log_negatives - scores, 0.0), threshold=50)
    count = positives.sum().clamp(min=1) if positive_count is None else positive_count
    return torch.where(counted, losses, 0.0).sum() / count


def teacher_distribution(teacher_scores: Tensor, candidates: Tensor, temperature: float) -> Tensor:
    """Return ``q``: softmax of ``t / T`` over each row's candidates, zero elsewhere.

    Args:
        teacher_scores: (B, U) float, natural log; anything outside ``candidates``, NaN included, is ignored.
        candidates: (B, U) bool.
        temperature: T > 0.

    Returns:
        (B, U) float; a row without candidates is all zero. Computed in at least float32 with the maximum subtracted.
    """
    wide = teacher_scores.to(torch.promote_types(teacher_scores.dtype, torch.float32))
    has_candidates = candidates.any(dim=1, keepdim=True)
    logits = torch.where(candidates, wide / temperature, -torch.inf).masked_fill(~has_candidates, 0.0)
    return torch.where(candidates, torch.softmax(logits, dim=1), 0.0)


def score_transfer(
    scores: Tensor,
    teacher_scores: Tensor,
    candidates: Tensor,
    negatives: Tensor,
    temperature: float,
    row_count: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the student's ``p`` under the teacher's ``q``, and the entropy of ``q``.

    Args:
        scores: (B, U) float, student.
        teacher_scores: (B, U) float, teacher, natural log; looked at inside ``candidates`` only.
        candidates: (B, U) bool, the support of ``q``.
        negatives: (B, U) bool; with the candidates the support of ``p``.
        temperature: T > 0, of the teacher only.
        row_count: scalar above 0, what the sums over rows are divided by; how many rows have candidates unless told.

    Returns:
        Two scalars, means over the rows that have candidates: ``-sum q log p`` and ``H(q)``.
    """
    q = teacher_distribution(teacher_scores, candidates, temperature)
    support = candidates | negatives
    has_candidates = candidates.any(dim=1, keepdim=True)
    safe = torch.where(support, scores, -torch.inf).masked_fill(~has_candidates, 0.0)
    log_p = torch.where(candidates, scores - torch.logsumexp(safe, dim=1, keepdim=True), 0.0)
    rows = has_candidates.sum().clamp(min=1) if row_count is None else row_count
    entropy = -torch.xlogy(q, q).sum() / rows
    return -(q * log_p).sum() / rows, entropy


class G2RLoss:
    """``(1 - alpha) CE + alpha KD`` over one score matrix (Kim et al. 2021).

    Args:
        alpha: weight of the score transfer, 0 to 1; 0 is data-level G2R or the plain baseline.
        temperature: T > 0, divides the teacher's scores; length-normalised log-likelihoods span 1-3 nats, so 1 gives a
            flat target, while unnormalised mutual information gives a peaked one.

    Raises:
        ValueError: a setting is out of its range.

    >>> scores = torch.tensor([[2.0, 1.0, 0.0]])
    >>> positives = torch.tensor([[True, False, False]])
    >>> round(G2RLoss(alpha=0.0)(scores, positives, ~positives).total.item(), 4)
    0.4076
    """

    def __init__(self, alpha: float = 0.1, temperature: float = 1.0) -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"loss.alpha={alpha}: the weight of the score transfer lies between 0 and 1")
        if not temperature > 0:
            raise ValueError(f"loss.temperature={temperature}: must be larger than 0")
        self.alpha = alpha
        self.temperature = temperature

    def __call__(
        self,
        scores: Tensor,
        positives: Tensor,
        negatives: Tensor,
        teacher_scores: Tensor | None = None,
        candidates: Tensor | None = None,
        positive_count: Tensor | None = None,
        row_count: Tensor | None = None,
    ) -> G2RLossOutput:
        """Return the loss of one step.

        Args:
            scores: (B, U) float, student score of context b and response u.
            positives: (B, U) bool, enter the cross-entropy.
            negatives: (B, U) bool.
            teacher_scores: (B, U) float, natural log; may be ``None`` only where alpha is 0.
            candidates: (B, U) bool, enter the score transfer; the positives unless told.
            positive_count: scalar, divides the cross-entropy's sum instead of the number of these positives.
            row_count: scalar, divides the score transfer's sums instead of the number of these rows with candidates.

        Raises:
            ValueError: shapes differ, a response is both candidate and negative of one row, a positive is no
                candidate, teacher scores are missing though alpha is not 0, or are not finite inside ``candidates``.
        """
        candidates = positives if candidates is None else candidates
        self._check(scores, positives, negatives, teacher_scores, candidates)
        cross_entropy = response_selection(scores, positives, negatives, positive_count)
        if teacher_scores is None:
            transfer = entropy = scores.new_zeros(())
        else:
            transfer, entropy = score_transfer(
                scores, teacher_scores, candidates, negatives, self.temperature, row_count
            )
        total = (1 - self.alpha) * cross_entropy
        if self.alpha > 0:  # 0 * transfer would still send NaN and time through the backward pass
            total = total + self.alpha * transfer
        return G2RLossOutput(total, cross_entropy, transfer, (transfer - entropy).detach(), entropy.detach())

    def _check(
        self, scores: Tensor, positives: Tensor, negatives: Tensor, teacher: Tensor | None, candidates: Tensor
    ) -> None:
        for name, mask in (("positives", positives), ("negatives", negatives), ("candidates", candidates)):
            if mask.shape != scores.shape or mask.dtype != torch.bool:
                raise ValueError(
                    f"{name} must be a bool mask of shape {tuple(scores.shape)}, got {mask.dtype} {tuple(mask.shape)}"
                )
        if (candidates & negatives).any():
            raise ValueError("a response is both candidate and negative of one context: equal texts are one response")
        if (positives & ~candidates).any():
            raise ValueError("every positive must be a candidate")
        if teacher is None:
            if self.alpha > 0:
                raise ValueError(f"loss.alpha={self.alpha} needs teacher scores; run `score`, or set alpha to 0")
        elif teacher.shape != scores.shape:
            raise ValueError(f"teacher_scores must have shape {tuple(scores.shape)}, got {tuple(teacher.shape)}")
        elif not torch.isfinite(teacher[candidates]).all():
            row = int((candidates & ~torch.isfinite(teacher)).any(dim=1).nonzero()[0])
            raise ValueError(f"teacher score of row {row} is NaN or infinite inside `candidates`")
