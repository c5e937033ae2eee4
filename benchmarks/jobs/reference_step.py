"""The reference's step: 48 contexts, at most 10 candidates each, 512 shared random negatives, CE + KL."""

from __future__ import annotations

from typing import Any

from g2r_lightning.student import StudentText
from harness import OURS, Job, Way, scratch
from jobs.common import REFERENCE, SEED, backbone, student_text, texts
from jobs.sizes import Sizes
from jobs.training import PEAK
from ours import data_module
from texts import Pair

CANDIDATES = 10
POOL = 4  # steps' worth of pairs, so that there are responses to draw negatives from
LOOP = "plain Hugging Face loop, padded to the longest, float32"
FLOAT32 = "ours, float32"
BFLOAT16 = "ours, bfloat16"


def same_step(settings: dict[str, Any], pairs: list[Pair], text: StudentText) -> tuple[list[Pair], list[str]]:
    """Return the contexts and the negatives of the first step that the data module makes of these pairs."""
    told = {**settings, "name": "reference_step", "way": "harness", "scratch": str(scratch())}
    data = data_module(told, pairs, "same")
    data.prepare_for(text)
    batch = next(iter(data.train_dataloader()))
    said = data.training_responses.texts
    by_tokens = dict(zip(map(tuple, text.encode_responses(said)), said, strict=True))
    shared = batch.negatives.all(dim=0).nonzero().flatten().tolist()
    ids, lengths = batch.response_ids, batch.response_mask.sum(dim=1)
    negatives = [by_tokens[tuple(ids[column, : lengths[column]].tolist())] for column in shared]
    return [pairs[example] for example in batch.examples.tolist()], negatives


def job(sizes: Sizes) -> Job:
    """Return the job: one step, the very same contexts, candidates and negatives for all ways."""
    text = student_text(REFERENCE)
    pairs = texts().pairs(POOL * sizes.reference_contexts, text, CANDIDATES, cut=True)
    settings = {
        **REFERENCE, "seed": SEED, "model": backbone(), "batch_size": sizes.reference_contexts, "steps": 1,
        "random_negatives": sizes.reference_negatives, "length_grouping": False, "pairs": pairs, "warm_up": 4,
    }  # fmt: skip
    chosen, negatives = same_step(settings, pairs, text)
    return Job(
        name="reference_step",
        title=f"Training, the reference's step ({sizes.reference_contexts} contexts, ≤ {CANDIDATES} candidates, "
        f"{sizes.reference_negatives} random negatives)",
        about=(
            "A step as that of Kim et al. (2021), CE + KL: contexts of up to 20 utterances and 240 tokens, responses "
            "of up to 128; theirs has 48 contexts and 512 negatives (`--size full`, with more memory). Both "
            "ways take the same contexts, candidates and negatives; the plain loop pads all contexts to the longest "
            "context and all responses to the longest response."
        ),
        unit="contexts",
        settings=settings,
        ways=[
            Way(LOOP, "hf_loop", settings={"pairs": chosen, "negatives": negatives}),
            Way(FLOAT32, OURS, "float32"), Way(BFLOAT16, OURS, "bfloat16"), Way(PEAK, OURS, "peak"),
        ],
        rounds=sizes.rounds,
        facts={"contexts": sizes.reference_contexts, "candidates": CANDIDATES, "negatives": len(negatives)},
    )  # fmt: skip
