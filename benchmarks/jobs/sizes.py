"""How large a job is measured: as the goals name it, in 40 minutes altogether, or in two."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Sizes of all jobs.

    Args:
        rounds: of each way.
        steps: training steps of a round.
        distillation_steps: the same where each context has several candidates.
        batch_size: pairs of a training step.
        reference_contexts: contexts of the reference's step.
        reference_negatives: random negatives of the reference's step.
        responses: that are encoded.
        contexts: of the full-set evaluation.
        searched: responses of the full-set evaluation.
        memory_batch: pairs of the step whose memory is measured.
    """

    rounds: int
    steps: int
    distillation_steps: int
    batch_size: int
    reference_contexts: int
    reference_negatives: int
    responses: int
    contexts: int
    searched: int
    memory_batch: int


# the reference's step in full takes more than 24 GB where it is padded to the longest
FULL = Sizes(3, 50, 10, 64, 48, 512, 50_000, 2_000, 100_000, 1_024)
STANDARD = Sizes(3, 10, 3, 64, 24, 256, 10_000, 2_000, 100_000, 1_024)
SMALL = Sizes(2, 2, 1, 8, 4, 32, 200, 40, 10_000, 32)
BY_NAME = {"full": FULL, "standard": STANDARD, "small": SMALL}
