"""A training step of B (context, response) pairs with in-batch negatives."""

from __future__ import annotations

from harness import OURS, Job, Way
from jobs.common import SEED, SHORT, backbone, student_text, texts
from jobs.sizes import Sizes

SBERT = "sentence-transformers trainer, MultipleNegativesRankingLoss"
LOOP = "plain Hugging Face loop, float32"
IR = "lightning-ir"
FLOAT32 = "ours, float32"
BFLOAT16 = "ours, bfloat16"
PEAK = "2048³ matrix product"


def job(sizes: Sizes) -> Job:
    """Return the job: an epoch over so many steps' pairs, the same for all ways, each with its own sampler."""
    pairs = texts().pairs(sizes.steps * sizes.batch_size, student_text(SHORT))
    return Job(
        name="training",
        title=f"Training, batches of {sizes.batch_size} pairs, in-batch negatives",
        about=(
            f"One epoch over {len(pairs):,} (context, response) pairs of {texts().about}: the last three utterances as "
            "context, cosines times 20, cross-entropy over the batch's responses, AdamW with clipping and a linear "
            "schedule. Timed from before the first batch is drawn to after the last step; every way tokenises, batches "
            "and pads as its authors have it."
        ),
        unit="pairs",
        settings={**SHORT, "seed": SEED, "model": backbone(), "batch_size": sizes.batch_size, "pairs": pairs,
                  "warm_up": sizes.batch_size},
        ways=[
            Way(SBERT, "sbert"), Way(LOOP, "hf_loop"), Way(IR, "ir_trainer"), Way(FLOAT32, OURS, "float32"),
            Way(BFLOAT16, OURS, "bfloat16"), Way(PEAK, OURS, "peak"),
        ],
        rounds=sizes.rounds,
        facts={"pairs": len(pairs), "batch_size": sizes.batch_size, "steps": sizes.steps},
    )  # fmt: skip
