"""docs/performance.md, made from the results in docs/results/performance and from nothing else.

``python benchmarks/performance_page.py``. What was not measured is an empty cell with its reason; nothing is typed in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import RESULTS, median, ratio
from jobs import distillation, encoding, evaluation, memory, reference_step, training

PAGE = Path("docs/performance.md")
Result = dict[str, Any]
ABOUT = (
    "Made from docs/results/performance by `python benchmarks/performance_page.py`; `make bench` measures all of "
    "it anew. Each way of doing a job runs in a process of its own (the peers in virtual environments of their "
    "own) with the same pinned threads, and the ways take turns. A ratio is that of the medians, work done a "
    "second, ours over the peer's; in brackets the smallest and the largest of two rounds side by side. An empty "
    "cell was not measured, for the reason beside it."
)


@dataclass(frozen=True)
class Goal:
    """A figure to be reached.

    Args:
        job: whose result holds it.
        what: that is compared.
        way: ours.
        against: the peer's.
        least: the goal, a ratio of work done a second.
        cosine: that no vector may fall below, beside the peer's; ``None`` where that is no condition.
    """

    job: str
    what: str
    way: str
    against: str
    least: float
    cosine: float | None = None


GOALS = (
    Goal("training", "training, in-batch, bfloat16", training.BFLOAT16, training.SBERT, 2.5),
    Goal("training", "training, in-batch, float32", training.FLOAT32, training.SBERT, 1.5),
    Goal("reference_step", "the reference's step, bfloat16", reference_step.BFLOAT16, reference_step.LOOP, 3.0),
    Goal("reference_step", "the reference's step, float32", reference_step.FLOAT32, reference_step.LOOP, 3.0),
    Goal("encoding", "encoding, PyTorch bfloat16", encoding.BFLOAT16, encoding.SBERT, 2.4),
    Goal("encoding", "encoding, PyTorch float32", encoding.FLOAT32, encoding.SBERT, 1.0),
    Goal("encoding", "encoding, OpenVINO", encoding.OPENVINO, encoding.SBERT, 3.3, cosine=0.9999),
    Goal("encoding", "encoding, OpenVINO int8 (cosine at least 0.999)", encoding.INT8, encoding.SBERT, 4.5),
    Goal("encoding", "encoding, ONNX Runtime", encoding.ONNX, encoding.SBERT, 3.3),
    Goal("evaluation", "full-set evaluation", evaluation.WHOLE, evaluation.TORCHMETRICS, 5.0),
    Goal("evaluation", "full-set evaluation", evaluation.WHOLE, evaluation.FAISS, 5.0),
)
PEAK_SHARE, MEMORY_SHARE = 0.5, 0.15
OTHER_RATIOS = (  # compared without a goal
    ("training", training.FLOAT32, training.LOOP),
    ("training", training.FLOAT32, training.IR),
    ("distillation", distillation.FLOAT32, distillation.SBERT),
    ("distillation", distillation.BFLOAT16, distillation.SBERT),
    ("evaluation", evaluation.WHOLE, evaluation.FAISS_BATCHED),
)


def read_results(folder: Path = RESULTS) -> list[Result]:
    """Return all results of a folder, in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def rounds(result: Result, label: str) -> list[dict[str, Any]]:
    """Return the rounds of a way; none where it was not measured."""
    found: list[dict[str, Any]] = result["ways"].get(label, {}).get("rounds", [])
    return found


def reason(result: Result, label: str) -> str:
    """Return why a way has no figure."""
    told = result["ways"].get(label)
    return "not measured" if told is None else told.get("missing", "not measured")


def share_of_peak(result: Result, label: str) -> float | None:
    """Return useful FLOPs a second over the matrix product's of that precision; ``None`` where either is missing."""
    ours, peaks = rounds(result, label), rounds(result, training.PEAK)
    kind = "bfloat16" if "bfloat16" in label else "float32"
    if not ours or not peaks or "flops_per_second" not in ours[0] or kind not in peaks[0]["peak_flops_per_second"]:
        return None
    peak = median([{"seconds": one["peak_flops_per_second"][kind]} for one in peaks])
    return median(ours, "flops_per_second") / peak


def grown(result: Result, label: str) -> float | None:
    """Return the median bytes that a step took above what the process held before it."""
    found = rounds(result, label)
    return median([{"seconds": one["peak"] - one["before"]} for one in found]) if found else None


def compared(result: Result, against: str, way: str) -> str:
    """Return a cell: the ratio of the medians with its smallest and largest round; empty where a side is missing."""
    slow, fast = rounds(result, against), rounds(result, way)
    if not slow or not fast:
        return ""
    wall, cpu = ratio(slow, fast), ratio(slow, fast, "cpu_seconds")
    return f"{wall['ratio']:.2f} x ({wall['low']:.2f} to {wall['high']:.2f}); CPU time {cpu['ratio']:.2f} x"


def goals_table(results: dict[str, Result]) -> list[str]:
    """Return the table of goals, one line each."""
    lines = ["| job | against | at least | reached | |", "| --- | --- | --- | --- | --- |"]
    for goal in GOALS:
        result = results.get(goal.job)
        cell = compared(result, goal.against, goal.way) if result else ""
        lines.append(f"| {goal.what} | {goal.against} | {goal.least:g} x | {cell} | {note(result, goal, cell)} |")
    for kind in (training.FLOAT32, training.BFLOAT16):
        result = results.get("training")
        share = share_of_peak(result, kind) if result else None
        verdict = said(share is not None and share >= PEAK_SHARE, result) if share is not None else ""
        lines.append(
            f"| share of the matrix product's peak, {kind} | - | {PEAK_SHARE:.0%} | "
            f"{'' if share is None else f'{share:.0%}'} | {verdict or missing(result, kind)} |"
        )
    result = results.get("memory")
    plain, cached = (grown(result, label) if result else None for label in (memory.PLAIN, memory.CACHED))
    cell = f"{cached / plain:.1%}" if plain and cached else ""
    verdict = said(cached / plain < MEMORY_SHARE, result) if plain and cached else missing(result, memory.CACHED)
    lines.append(f"| memory with cached gradients | {memory.PLAIN} | < {MEMORY_SHARE:.0%} | {cell} | {verdict} |")
    return lines


def note(result: Result | None, goal: Goal, cell: str) -> str:
    """Return whether the goal is reached, or why there is no figure."""
    if result is None or not cell:
        without = goal.way if result is None or not rounds(result, goal.way) else goal.against
        return missing(result, without)
    verdict = said(ratio(rounds(result, goal.against), rounds(result, goal.way))["ratio"] >= goal.least, result)
    found = result.get("cosines", {}).get(goal.way)
    if goal.cosine is None or found is None or found["smallest"] >= goal.cosine:
        return verdict
    wanted = f"{goal.cosine:g} was wanted of all vectors"
    return f"{verdict} in speed; cosine {found['mean']:.5f} in the mean, {found['smallest']:.5f} at least: {wanted}"


def said(reached: bool, result: Result | None) -> str:
    """Return a verdict, and that the machine was busy where it was."""
    busy = ", measured on a busy machine" if result and result["busy"] else ""
    return ("reached" if reached else "**not reached**") + busy


def missing(result: Result | None, label: str) -> str:
    """Return why a cell is empty."""
    return "not measured" if result is None else f"{label}: {reason(result, label)}"


def job_section(result: Result) -> list[str]:
    """Return the section of one job: every way, with its rounds."""
    unit = result["unit"]
    lines = [f"## {result['title']}{'' if result['device'] == 'cpu' else ', on a GPU'}", "", result["about"], ""]
    lines += [
        f"| way | {unit}/s | seconds | CPU seconds | rounds, seconds | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for label in result["ways"]:
        found = rounds(result, label)
        if not found:
            lines.append(f"| {label} | | | | | {reason(result, label)} |")
        elif label != training.PEAK:
            seconds = median(found)
            each = ", ".join(f"{one['seconds']:.1f}" for one in found)
            lines.append(
                f"| {label} | {found[0]['units'] / seconds:,.1f} | {seconds:.1f} | "
                f"{median(found, 'cpu_seconds'):.1f} | {each} | {remark(result, label)} |"
            )
    lines += ["", *others(result), conditions(result)]
    return lines


def remark(result: Result, label: str) -> str:
    """Return what else is known of a way: padding, share of peak, figures, cosines, memory."""
    last = rounds(result, label)[-1]
    said_of_it = []
    if "computed" in last:
        padding = 1 - last["tokens"] / last["computed"]
        said_of_it.append(f"{last['tokens']:,} tokens, padding {padding:.0%} of all computed")
    if (share := share_of_peak(result, label)) is not None:
        said_of_it.append(f"{share:.0%} of the peak")
    if "figures" in last:
        said_of_it.append(", ".join(f"{name} {value:.4f}" for name, value in last["figures"].items()))
    if label in result.get("cosines", {}):
        cosine = result["cosines"][label]
        said_of_it.append(f"cosine at least {cosine['smallest']:.5f}, mean {cosine['mean']:.6f}")
    if "peak" in last:
        said_of_it.append(f"{(last['peak'] - last['before']) / 1e6:,.0f} MB above {last['before'] / 1e6:,.0f} MB")
    return "; ".join(said_of_it)


def others(result: Result) -> list[str]:
    """Return the ratios of this job that have no goal."""
    lines = []
    for job, way, against in OTHER_RATIOS:
        if job == result["job"] and (cell := compared(result, against, way)):
            lines += [f"{way} against {against}: {cell}.", ""]
    return lines


def conditions(result: Result) -> str:
    """Return one paragraph on how it was measured."""
    machine, load = result["machine"], result["load_of_others_in_cores"]
    busy = " **The machine was busy: these figures are preliminary.**" if result["busy"] else ""
    versions: dict[str, str] = {}
    for told in result["ways"].values():
        versions.update({name: version for name, version in told.get("versions", {}).items() if version})
    software = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return (
        f"Made by `{result['command']}` ({result['made']}), {result['threads']} threads, medians of the rounds, ways "
        f"in turns; {machine['processor']}, {machine['cores']} cores, {' '.join(machine['flags'])}"
        f"{', ' + machine['gpu'] if machine.get('gpu') else ''}; load of other processes {load['before']} cores "
        f"before, {load['after']} after.{busy} {software}."
    )


def page(results: list[Result]) -> str:
    """Return the whole page."""
    lines = ["# Performance", "", ABOUT, ""]
    for device in ("cpu", "cuda"):
        some = {result["job"]: result for result in results if result["device"] == device}
        if some or device == "cpu":
            lines += [f"## Goals{'' if device == 'cpu' else ', on a GPU'}", "", *goals_table(some), ""]
            for result in some.values():
                lines += [*job_section(result), ""]
    return "\n".join(lines).rstrip() + "\n"


def write_page() -> Path:
    """Write the page and return its path."""
    PAGE.write_text(page(read_results()), encoding="utf-8")
    return PAGE


if __name__ == "__main__":
    print(write_page())
