"""``make bench``: every figure of docs/performance.md, measured beside its peer in one run.

``python benchmarks/bench.py [--size small|standard|full] [--jobs training encoding ...]``. Results go to
docs/results/performance/<job>.json, and the page is made from them again.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import psutil

from g2r_lightning.errors import G2RError
from harness import Conditions, Job, cpu_flags, good_at_bfloat16, measure, refuse_load, write_result
from jobs import distillation, encoding, evaluation, memory, reference_step, training
from jobs.sizes import BY_NAME
from performance_page import write_page

JOBS = {
    "training": training.job,
    "distillation": distillation.job,
    "reference_step": reference_step.job,
    "encoding": encoding.job,
    "evaluation": evaluation.job,
    "memory": memory.job,
}


def run(job: Job, conditions: Conditions) -> dict[str, Any]:
    """Measure one job, write its result and the page, and return the result."""
    print(f"{job.title}", flush=True)
    result = measure(job, conditions)
    if job.name == "encoding":
        result["cosines"] = encoding.cosines(result["ways"])
    for told in result["ways"].values():
        for one in told.get("rounds", []):
            one.pop("vectors", None)  # a path of this machine
    print(f"  {write_result(result)}, {write_page()}", flush=True)
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the jobs that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=sorted(BY_NAME), default="standard")
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--allow-load", action="store_true", help="measure on a busy machine; the results say so")
    arguments = parser.parse_args(argv)
    command = "python benchmarks/bench.py " + " ".join(sys.argv[1:] if argv is None else argv)
    conditions = Conditions(
        command=command.strip(),
        threads=arguments.threads,
        device=arguments.device,
        allow_load=arguments.allow_load,
        bfloat16=good_at_bfloat16(cpu_flags(), arguments.device),
    )
    try:
        refuse_load(conditions.allow_load)  # before the dialogues are read
        for name in arguments.jobs:
            run(JOBS[name](BY_NAME[arguments.size]), conditions)
    except G2RError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
