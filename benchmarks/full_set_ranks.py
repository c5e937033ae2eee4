"""Full-set ranks against a loop over queries: FAISS Flat, and torchmetrics' reciprocal rank; embeddings given.

``OMP_NUM_THREADS=2 python benchmarks/full_set_ranks.py``: rounds of all systems in turn, so that what else the machine
does falls on all alike. The loops answer some of the queries, and their time is taken for all of them. A loop of FAISS
finds the first hundred responses alone; the ranks of ours and of the float64 product are compared one by one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import faiss
import torch
from torchmetrics.functional.retrieval import retrieval_reciprocal_rank

from g2r_lightning.metrics import full_set_ranks
from report import write_report


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", type=int, default=2000)
    parser.add_argument("--responses", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--looped", type=int, default=25, help="queries that the loops answer a round")
    arguments = parser.parse_args()
    draw = torch.Generator().manual_seed(0)
    responses = torch.randn(arguments.responses, 384, generator=draw)
    gold = torch.randint(arguments.responses, (arguments.contexts,), generator=draw)
    contexts = torch.randn(arguments.contexts, 384, generator=draw) + 0.2 * responses[gold]
    flat = faiss.IndexFlatIP(384)
    flat.add(responses.numpy())
    target = torch.zeros(arguments.responses, dtype=torch.bool)

    def ranks() -> torch.Tensor:
        return full_set_ranks(lambda c, r: c @ r.T, contexts, responses, gold)

    def product() -> None:
        for first in range(0, arguments.contexts, 256):
            for start in range(0, arguments.responses, 8192):
                contexts[first : first + 256] @ responses[start : start + 8192].T

    def faiss_loop() -> None:
        for row in range(arguments.looped):
            flat.search(contexts[row : row + 1].numpy(), 100)

    def torchmetrics_loop() -> None:
        for row in range(arguments.looped):
            scores = contexts[row] @ responses.T
            target.zero_()[gold[row]] = True
            retrieval_reciprocal_rank(scores - scores.min() + 1, target)  # a score of 0 or less counts as absent

    share = arguments.contexts / arguments.looped
    systems: dict[str, tuple[Callable[[], object], float]] = {
        "full_set_ranks": (ranks, 1.0),
        "its matrix products alone": (product, 1.0),
        "FAISS Flat, one query at a time": (faiss_loop, share),
        "torchmetrics, one query at a time": (torchmetrics_loop, share),
    }
    wall: dict[str, list[float]] = {name: [] for name in systems}
    cpu: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(arguments.rounds):
        for name, (run, factor) in systems.items():
            begun, used = time.perf_counter(), time.process_time()
            run()
            wall[name].append(factor * (time.perf_counter() - begun))
            cpu[name].append(factor * (time.process_time() - used))
    exact = contexts.double() @ responses.double().T
    own = exact.gather(1, gold.unsqueeze(1))
    differing = int((ranks() != (exact >= own - 1e-5 * own.abs()).sum(dim=1)).sum())
    ours = statistics.median(cpu["full_set_ranks"])
    rows = [
        {
            "system": name,
            "seconds": f"{statistics.median(wall[name]):.1f}",
            "CPU seconds": f"{statistics.median(cpu[name]):.1f}",
            "CPU time of full_set_ranks": f"{statistics.median(cpu[name]) / ours:.1f} x",
        }
        for name in systems
    ]
    found = {"wall": wall, "cpu": cpu, "ranks unlike float64": differing, "threads": torch.get_num_threads()}
    about = (
        f"{arguments.contexts:,} contexts, {arguments.responses:,} responses, 384 dimensions, "
        f"{torch.get_num_threads()} threads; medians of {arguments.rounds} rounds; the loops answer "
        f"{arguments.looped} queries a round. Ranks unlike those of a product in float64: {differing}."
    )
    command = "OMP_NUM_THREADS=2 python benchmarks/full_set_ranks.py"
    print(write_report("full_set_ranks", "Full-set ranks", command, about, rows, found))


if __name__ == "__main__":
    main()
