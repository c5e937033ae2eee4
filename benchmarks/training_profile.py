"""Where the time of a training step goes, operation by operation: why a step stays below the matrix product's peak.

``python benchmarks/training_profile.py [--way bfloat16]``: the training job of ``make bench`` under torch's profiler,
one round after a warm-up. Shares are of the operations' own time, what they call not counted, so they add up.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from typing import Any

from torch.profiler import ProfilerActivity, profile

import ours
from harness import cpu_flags, good_at_bfloat16
from jobs import training
from jobs.sizes import BY_NAME
from report import write_report

KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::matmul"),
    "random numbers of dropout": ("aten::bernoulli_",),
    "copies, mostly between float32 and bfloat16": ("aten::copy_", "aten::_to_copy", "aten::to", "aten::clone"),
    "softmax, GELU, layer norm": (
        "aten::_softmax", "aten::_softmax_backward_data", "aten::gelu", "aten::gelu_backward",
        "aten::native_layer_norm", "aten::native_layer_norm_backward",
    ),
    "element-wise products, sums and masks": (
        "aten::mul", "aten::mul_", "aten::add", "aten::add_", "aten::div", "aten::div_", "aten::sum", "aten::where",
        "aten::all", "aten::isneginf", "aten::fill_", "aten::masked_fill", "aten::eq", "aten::sub",
    ),
    "optimiser and clipping": ("aten::_fused_adamw_", "aten::linalg_vector_norm", "Optimizer.step#AdamW.step"),
}  # fmt: skip
OTHER = "everything else, the Python around it included"


def shares(events: Any) -> dict[str, float]:
    """Return each kind's part of all operations' own time, the largest first."""
    kind_of = {name: kind for kind, names in KINDS.items() for name in names}
    spent: dict[str, float] = defaultdict(float)
    for event in events:
        spent[kind_of.get(event.key, OTHER)] += event.self_cpu_time_total
    whole = sum(spent.values())
    return {kind: time / whole for kind, time in sorted(spent.items(), key=lambda one: -one[1])}


def main() -> None:
    """Profile one round, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    good = good_at_bfloat16(cpu_flags())
    parser.add_argument("--way", choices=list(ours.PRECISION), default="bfloat16" if good else "float32")
    parser.add_argument("--size", choices=sorted(BY_NAME), default="standard")
    given = parser.parse_args()
    job = training.job(BY_NAME[given.size])
    with tempfile.TemporaryDirectory() as folder:
        told = {"name": job.name, "way": given.way, "bfloat16": good, "device": "cpu", "scratch": folder}
        run = ours.training({**job.settings, **told})
        run(True)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            found = run(False)
    parts = shares(profiler.key_averages())
    rows = [{"part of the step": kind, "share of the time": f"{share:.1%}"} for kind, share in parts.items()]
    about = (
        f"{job.title}, {given.way}: {found['steps']} steps, {found['tokens']:,} real tokens of {found['computed']:,} "
        f"computed, in {found['seconds']:.1f} s under torch's profiler."
    )
    command = " ".join(["python benchmarks/training_profile.py", *sys.argv[1:]])
    kept = {"shares": parts, **{key: found[key] for key in ("seconds", "steps", "tokens", "computed")}}
    print(write_report("training_profile", "Where the time of a training step goes", command, about, rows, kept))


if __name__ == "__main__":
    main()
