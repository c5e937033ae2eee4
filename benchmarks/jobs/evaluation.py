"""Full-set evaluation: where the human response of each context ranks among all responses, embeddings given."""

from __future__ import annotations

import numpy as np

from harness import OURS, Job, Way, scratch
from jobs.common import SEED
from jobs.sizes import Sizes

DIMENSION = 384
DEEPEST = (1, 10, 100)
TORCHMETRICS = "torchmetrics, one query after the other"
FAISS = "FAISS Flat, one query after the other"
FAISS_BATCHED = "FAISS Flat, all queries at once"
WHOLE = "ours, exact ranks in blocks"


def job(sizes: Sizes) -> Job:
    """Return the job over drawn unit vectors; each context lies near its response, amid the others."""
    draw = np.random.default_rng(SEED)
    responses = _unit(draw.standard_normal((sizes.searched, DIMENSION), np.float32) + 0.5)
    gold = draw.integers(sizes.searched, size=sizes.contexts)
    noise = draw.standard_normal((sizes.contexts, DIMENSION), np.float32) + 0.5
    contexts = _unit(0.22 * responses[gold] + _unit(noise))
    paths = {name: str(scratch() / f"{name}.npy") for name in ("contexts", "responses", "gold")}
    for name, array in (("contexts", contexts), ("responses", responses), ("gold", gold)):
        np.save(paths[name], array)
    return Job(
        name="evaluation",
        title=f"Full-set evaluation, {sizes.contexts:,} contexts x {sizes.searched:,} responses, embeddings given",
        about=(
            f"Recall@1, 10 and 100, and MRR where the way has it, from drawn unit vectors of {DIMENSION} dimensions, "
            "made so that all scores are above zero (torchmetrics counts the others as absent) and the figures lie "
            "between 0 and 1. FAISS stops at the best 100; ours ranks every response, and ties count against the model."
        ),
        unit="contexts",
        settings={"seed": SEED, "ks": list(DEEPEST), "warm_up": 20, **paths},
        ways=[
            Way(TORCHMETRICS, "torchmetrics_loop"), Way(FAISS, "faiss_loop", "loop"),
            Way(FAISS_BATCHED, "faiss_loop", "batched"), Way(WHOLE, OURS, "blocks"),
        ],
        rounds=sizes.rounds,
        facts={"contexts": sizes.contexts, "responses": sizes.searched},
    )  # fmt: skip


def _unit(vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found
