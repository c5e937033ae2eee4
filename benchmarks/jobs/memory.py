"""Peak memory of one training step with a large batch, with and without cached gradients."""

from __future__ import annotations

from harness import OURS, Job, Way
from jobs.common import SEED, SHORT, backbone, student_text, texts
from jobs.sizes import Sizes

PLAIN = "ours, plain"
CACHED = "ours, cached gradients"


def job(sizes: Sizes) -> Job:
    """Return the job: one step in a fresh process."""
    pairs = texts().pairs(sizes.memory_batch, student_text(SHORT))
    return Job(
        name="memory",
        title=f"Memory of a training step, B = {sizes.memory_batch:,} pairs",
        about=(
            "Peak resident memory of one step (forward, backward, AdamW) above what the process held before it, model "
            "and data loaded; each way in a process of its own. Gradients and AdamW's two moments are part of it. "
            "Float32, in-batch negatives, the pairs of the training job."
        ),
        unit="pairs",
        settings={**SHORT, "seed": SEED, "model": backbone(), "batch_size": sizes.memory_batch, "pairs": pairs,
                  "warm_up": sizes.memory_batch, "steps": 1},
        ways=[Way(PLAIN, OURS, "plain"), Way(CACHED, OURS, "cached")],
        rounds=1,
        together=False,
        facts={"pairs": len(pairs)},
    )  # fmt: skip
