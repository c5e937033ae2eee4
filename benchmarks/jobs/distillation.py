"""A training step with a teacher: candidates of each context, and the teacher's scores of them."""

from __future__ import annotations

from harness import OURS, Job, Way
from jobs.common import SEED, SHORT, backbone, student_text, texts
from jobs.sizes import Sizes

CANDIDATES = 4
SBERT = "sentence-transformers trainer, DistillKLDivLoss"
FLOAT32 = "ours, CE + KL, float32"
BFLOAT16 = "ours, CE + KL, bfloat16"


def job(sizes: Sizes) -> Job:
    """Return the job: an epoch over so many steps' contexts with their candidates."""
    pairs = texts().pairs(sizes.distillation_steps * sizes.batch_size, student_text(SHORT), CANDIDATES)
    return Job(
        name="distillation",
        title=f"Training with a teacher's scores, batches of {sizes.batch_size} contexts x {CANDIDATES} candidates",
        about=(
            f"One epoch over {len(pairs):,} contexts, each with its response, {CANDIDATES - 1} further real responses "
            "in the place of a teacher's, and made-up scores. sentence-transformers compares the scores of a context's "
            "own candidates alone; ours adds the cross-entropy against the other contexts' candidates, over the same "
            "texts."
        ),
        unit="contexts",
        settings={**SHORT, "alpha": 0.1, "seed": SEED, "model": backbone(), "batch_size": sizes.batch_size,
                  "pairs": pairs, "warm_up": min(16, sizes.batch_size)},
        ways=[Way(SBERT, "sbert"), Way(FLOAT32, OURS, "float32"), Way(BFLOAT16, OURS, "bfloat16")],
        rounds=sizes.rounds,
        facts={"contexts": len(pairs), "candidates": CANDIDATES, "batch_size": sizes.batch_size},
    )  # fmt: skip
