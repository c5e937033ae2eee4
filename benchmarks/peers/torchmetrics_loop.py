"""Full-set evaluation with torchmetrics' retrieval functions: one query after the other.

Its classes do the same after they have kept every score of every query (2,000 x 100,000 of them, with an index and a
target each: more than 3 GB), so the functions are what can be used at this size. Scores above zero only: torchmetrics
counts a target of another score as absent, which these vectors do not have.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torchmetrics.functional.retrieval import retrieval_recall, retrieval_reciprocal_rank
from worker import Run, Stopwatch, serve

PACKAGES = ("torchmetrics", "torch")


def prepare(job: dict[str, Any]) -> Run:
    """Return a round: recall@1, 10, 100 and MRR of all contexts."""
    contexts, responses, gold = (torch.from_numpy(np.load(job[name])) for name in ("contexts", "responses", "gold"))

    def run(warm_up: bool) -> dict[str, Any]:
        number = min(job["warm_up"], len(contexts)) if warm_up else len(contexts)
        found: dict[str, list[float]] = {f"recall_at_{k}": [] for k in job["ks"]} | {"mrr": []}
        stopwatch = Stopwatch()
        stopwatch.start()
        for row in range(number):
            scores = responses @ contexts[row]
            target = torch.zeros(len(responses), dtype=torch.bool)
            target[gold[row]] = True
            for k in job["ks"]:
                found[f"recall_at_{k}"].append(float(retrieval_recall(scores, target, top_k=k)))
            found["mrr"].append(float(retrieval_reciprocal_rank(scores, target)))
        figures = {name: sum(values) / len(values) for name, values in found.items()}
        stopwatch.stop()
        return {**stopwatch.elapsed, "units": number, "figures": figures}

    return run


if __name__ == "__main__":
    serve(prepare, PACKAGES)
