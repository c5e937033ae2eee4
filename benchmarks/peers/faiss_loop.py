"""Full-set evaluation with FAISS: an exact index (``IndexFlatIP``), searched for one query after the other.

It returns the best 100, so recall@1, 10 and 100 come out, and no rank beyond; the index is built outside the timing.
The ``batched`` way hands it all queries at once, which is faster than the loop.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from worker import Run, Stopwatch, serve

PACKAGES = ("faiss-cpu", "numpy")


def prepare(job: dict[str, Any]) -> Run:
    """Return a round: recall@k of all contexts."""
    contexts, responses, gold = (np.load(job[name]) for name in ("contexts", "responses", "gold"))
    index = faiss.IndexFlatIP(responses.shape[1])
    index.add(responses)
    faiss.omp_set_num_threads(job["threads"])
    deepest = max(job["ks"])

    def run(warm_up: bool) -> dict[str, Any]:
        number = min(job["warm_up"], len(contexts)) if warm_up else len(contexts)
        stopwatch = Stopwatch()
        stopwatch.start()
        if job["way"] == "batched":
            found = index.search(contexts[:number], deepest)[1]
        else:
            found = np.concatenate([index.search(contexts[row : row + 1], deepest)[1] for row in range(number)])
        where = found == gold[:number, None]
        figures = {f"recall_at_{k}": float(where[:, :k].any(axis=1).mean()) for k in job["ks"]}
        stopwatch.stop()
        return {**stopwatch.elapsed, "units": number, "figures": figures}

    return run


if __name__ == "__main__":
    serve(prepare, PACKAGES)
