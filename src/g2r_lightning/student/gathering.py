"""What the processes of a step tell each other, so that together they take the step of one process.

W processes have each their own contexts, and encode each a share of the step's responses
(:mod:`g2r_lightning.data.sharing`). Their averaged gradient is that of one process with the whole batch, because

1. every process scores its contexts against the responses of all. The vectors are gathered *with* gradient: backwards,
   a process receives the sum of what all the processes' losses ask of the vectors that it encoded;
2. every process divides the sums of its loss terms by the counts of the whole step over W, not by its own counts:
   ``mean over processes of W * sum / count`` is the sum over processes divided by the count;
3. so the mean of the processes' loss terms is the loss of the step, and that is what is logged.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_vectors(vectors: Tensor) -> Tensor:
    """Return the vectors of all processes, the first process's first, with gradient.

    Args:
        vectors: (R, d) float, equally many on every process.

    Returns:
        (W * R, d) float.
    """
    gathered: Tensor = _Gather.apply(vectors)  # type: ignore[no-untyped-call]
    return gathered


def counts_a_process(positives: Tensor, candidates: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return what the sums of the loss terms are divided by: the counts of the whole step, over W.

    Args:
        positives: (B, U) bool, of this process's contexts.
        candidates: (B, U) bool, likewise.
        dtype: of the scores.

    Returns:
        Two scalars: positives and contexts that have candidates, a process; the step's counts are at least 1.
    """
    counts = torch.stack([positives.sum(), candidates.any(dim=1).sum()])
    dist.all_reduce(counts)
    positive_count, row_count = counts.clamp(min=1).to(dtype) / dist.get_world_size()
    return positive_count, row_count


def mean_over_processes(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the mean of each scalar over all processes, without gradient; the keys are the same everywhere."""
    means = torch.stack([value.detach() for value in values.values()])
    dist.all_reduce(means)
    return dict(zip(values, means / dist.get_world_size(), strict=True))


class _Gather(torch.autograd.Function):
    """All processes' rows; backwards the sum of what all of them ask of one's own.

    torch 2.13 deprecates its own (``torch.distributed.nn.functional.all_gather``) for one in a private module.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:  # noqa: ARG004 - torch's signature
        """Return (processes · N, d): the rows of all processes, in the order of their ranks."""
        parts = [torch.empty_like(vectors, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, vectors.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004 - torch's signature
        """Return (N, d): what all processes' losses ask of this process's rows."""
        total = gradient.clone(memory_format=torch.contiguous_format)  # autograd's own tensor is not to be changed
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]
