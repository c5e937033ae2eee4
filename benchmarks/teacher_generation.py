"""Sampling five replies a context: this package against transformers' ``generate`` at its best batch size.

``python benchmarks/teacher_generation.py --data DATA --model FOLDER``: the same model, contexts and settings, contexts
sorted by length for both. ``generate`` is tried at several batch sizes and its best is taken; rounds go A/B/A/B in one
process. Filters and writing are timed apart, as a share of the pass. The draws differ, so a reply's mean length is told
for each way; ``generate`` runs all rows of a batch until the last one ends, ours leaves out those that have ended.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from g2r_lightning.dialogue import Example
from g2r_lightning.dialogue.readers import JsonlReader
from g2r_lightning.filters import Duplicates, Length, Printable, RepeatsContext, Repetitive, Truncated
from g2r_lightning.store import CANDIDATE_SCHEMA, ShardWriter, candidate_plan, describe_data
from g2r_lightning.teacher import CausalTeacher, EncoderDecoderTeacher, Sampling, Writing, generate_rows
from report import write_report

FILTERS = (Duplicates(), Truncated(), Length(2, 60), Printable(), RepeatsContext(), Repetitive())


Count = tuple[int, int]


def transformers_generate(teacher: Any, examples: list[Example], sampling: Sampling, batch: int) -> Count:
    """Return how many replies and tokens ``generate`` writes, sampled as documented, contexts sorted by length."""
    tokens = sorted((teacher.template.context_ids(example) for example in examples), key=len)
    replies = written = 0
    for start in range(0, len(tokens), batch):
        inputs, skipped = teacher._prompt(tokens[start : start + batch])
        with torch.no_grad():
            output = teacher.model.generate(
                **inputs, do_sample=True, top_p=sampling.top_p, top_k=0, temperature=sampling.temperature,
                num_return_sequences=sampling.num_replies, max_new_tokens=sampling.max_tokens, min_new_tokens=1,
                num_beams=1, no_repeat_ngram_size=0, eos_token_id=teacher._end_ids(),
                pad_token_id=teacher.tokenizer.pad_token_id,
            )  # fmt: skip
        replies += len(output)
        written += sum(_length(row, teacher._end_ids()) for row in output[:, skipped:].tolist())
    return replies, written


def _length(row: list[int], ends: list[int]) -> int:
    """Return the tokens of a reply with the one that ended it, as ours are counted."""
    return next((place + 1 for place, token in enumerate(row) if token in ends), len(row))


def ours(teacher: Any, examples: list[Example], sampling: Sampling) -> Count:
    """Return how many replies and tokens the package's teacher writes."""
    replies = [reply for own in teacher.generate(examples, sampling) for reply in own]
    return len(replies), sum(reply.num_tokens for reply in replies)


def whole_pass(teacher: Any, examples: list[Example], writing: Writing, folder: Path) -> float:
    """Generate, filter and write one shard as ``generate`` does; return the seconds that generating took of it."""
    generate, spent = teacher.generate, []

    def timed(*given: Any, **named: Any) -> Any:
        """Generate, and note how long it took."""
        begun = time.perf_counter()
        replies = generate(*given, **named)
        spent.append(time.perf_counter() - begun)
        return replies

    teacher.generate = timed
    plan = candidate_plan(describe_data(examples), {"name": "benchmark"}, {}, {}, len(examples))
    writer = ShardWriter(folder, CANDIDATE_SCHEMA, plan)
    writer.begin()
    rows, report = generate_rows(teacher, examples, writing)
    writer.write(0, rows, report.as_dict())
    writer.finish()
    del teacher.generate
    return sum(spent)


def main() -> None:
    """Measure, and print or write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("G2R_DATA", "data")))
    parser.add_argument("--model", required=True)
    parser.add_argument("--family", choices=["encoder-decoder", "causal"], default="encoder-decoder")
    parser.add_argument("--contexts", type=int, default=128)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    kind = CausalTeacher if arguments.family == "causal" else EncoderDecoderTeacher
    teacher = kind(name_or_path=arguments.model, dtype="float32")
    dialogues = list(JsonlReader(str(arguments.data / "blended_skill_talk/test.jsonl")))
    everything = [example for dialogue in dialogues for example in dialogue.examples()]
    examples = everything[:: len(everything) // arguments.contexts][: arguments.contexts]
    sampling = Sampling(num_replies=5, top_p=0.9, max_tokens=32)
    tries = {}
    for batch in arguments.batches:
        begun = time.perf_counter()
        transformers_generate(teacher, examples[: 2 * max(arguments.batches)], sampling, batch)
        tries[batch] = time.perf_counter() - begun
    best = min(tries, key=tries.__getitem__)
    ways: dict[str, Callable[[], Count]] = {
        f"transformers generate, batches of {best}": lambda: transformers_generate(teacher, examples, sampling, best),
        "ours": lambda: ours(teacher, examples, sampling),
    }
    seconds: dict[str, list[float]] = {way: [] for way in [*ways, "ours, filtered and written"]}
    drawn: dict[str, Count] = {}
    shares = []
    for number in range(arguments.rounds):
        for way, run in ways.items():
            torch.manual_seed(number)
            begun = time.perf_counter()
            drawn[way] = run()
            seconds[way].append(time.perf_counter() - begun)
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            generating = whole_pass(teacher, examples, Writing((sampling,), FILTERS), Path(folder) / "store")
            whole = time.perf_counter() - begun
            seconds["ours, filtered and written"].append(whole)
            shares.append(whole / generating - 1)
    median = {way: statistics.median(times) for way, times in seconds.items()}
    first = next(iter(median.values()))
    found = {
        "seconds of generate by batch size": tries,
        "replies and tokens": drawn,
        "seconds": seconds,
        "shares": shares,
    }
    rows = [
        {
            "way": way,
            "seconds": f"{seconds_of:.1f}",
            "tokens a reply": f"{drawn[way][1] / drawn[way][0]:.1f}" if way in drawn else "the same",
            "times faster than generate": f"{first / seconds_of:.2f}",
            "filters and writing, of generating": f"{statistics.median(shares):.1%}" if way.endswith("written") else "",
        }
        for way, seconds_of in median.items()
    ]
    about = (
        f"{len(examples)} contexts of Blended Skill Talk test, five replies each (top-p 0.9, at most 32 tokens), in "
        f"float32, medians of {arguments.rounds} rounds in one process, both sides sorted by context length; "
        f"`generate` at the best of the batch sizes {arguments.batches}."
    )
    command = f"python benchmarks/teacher_generation.py --data $G2R_DATA --family {arguments.family} --model FOLDER"
    command += f" --contexts {arguments.contexts} --batches {' '.join(map(str, arguments.batches))}"
    name = f"teacher_generation_{arguments.family.replace('-', '_')}"
    print(write_report(name, f"Sampling five replies a context, {arguments.family}", command, about, rows, found))


if __name__ == "__main__":
    main()
