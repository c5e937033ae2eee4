"""Long runs, compressed: a million responses indexed, 20,000 contexts scored, 50 epochs trained; all by tiny models.

    python benchmarks/long_run.py --part index --output docs/results/long_run.md

Each part is the real command in a process of its own. Twice a second its memory (children included) and its open files
are looked at. A leak shows as growth from the second quarter of the time, when all is loaded, to the last; what the
command said is measured too. Each part replaces its own row of the page.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
MB = 1e6
GROWTH_MB, FILES_MORE, SAID_MB = 64, 8, 2
HEAD = f"""# Long runs, compressed

Made by `make long-run`, part by part: the real commands with tiny random models in processes of their own, looked at
twice a second. Memory is the resident set with children; "early" is the median of the second quarter of the time,
"late" that of the last. A part fails where memory grows by more than {GROWTH_MB} MB, open files by more than
{FILES_MORE}, or the command says more than {SAID_MB} MB.

| part | command | seconds | memory early | late | peak | open files early | late | said | verdict |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
"""


@dataclass(frozen=True)
class Sample:
    """A look at a process.

    Args:
        memory: resident bytes, children included.
        files: open files of all of them.
    """

    memory: int
    files: int


def texts(count: int, seed: int) -> Iterator[str]:
    """Yield distinct responses of random words."""
    from tiny import WORDS

    draw = random.Random(seed)
    for number in range(count):
        yield f"{' '.join(draw.choice(WORDS) for _ in range(draw.randint(3, 9)))} {number}"


def prepare(folder: Path) -> Path:
    """Write the tiny experiment; return its file."""
    from tiny_experiment import write_experiment

    return write_experiment(folder)


def index_part(folder: Path, scale: float) -> list[str]:
    """Return the command that indexes a million responses."""
    from g2r_lightning.cli import main

    experiment = prepare(folder)
    if main(["fit", "-c", str(experiment), "--trainer.max_epochs=1"]) != 0:
        raise SystemExit("the student was not trained")
    source = folder / "responses.txt"
    with source.open("w", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in texts(int(1_000_000 * scale), 0))
    return [
        "index", f"--index.input={source}", f"--index.student={folder}/runs/first/index",
        f"--index.output={folder}/index", "--index.factory=Flat",
    ]  # fmt: skip


def score_part(folder: Path, scale: float) -> list[str]:
    """Return the command that scores the candidates of 20,000 contexts."""
    from tiny import WORDS, write_encoder_decoder

    write_encoder_decoder(folder / "teacher", WORDS)
    said = list(texts(int(20_000 * scale), 1))
    with (folder / "candidates.jsonl").open("w", encoding="utf-8") as file:
        for number, text in enumerate(said):
            others = [said[(number + step) % len(said)] for step in (1, 2)]
            file.write(json.dumps({"context": [text, others[0]], "candidates": others}) + "\n")
    return [
        "score", "--teacher=g2r_lightning.teacher.EncoderDecoderTeacher", f"--teacher.name_or_path={folder}/teacher",
        "--teacher.dtype=float32", f"--candidates={folder}/candidates.jsonl", f"--output={folder}/scored.jsonl",
    ]  # fmt: skip


def train_part(folder: Path, scale: float) -> list[str]:
    """Return the command that trains 50 epochs, each with its validation and index."""
    experiment = prepare(folder)
    return [
        "fit", "-c", str(experiment), f"--trainer.max_epochs={max(int(50 * scale), 1)}",
        "--trainer.callbacks=g2r_lightning.callbacks.RetrievalEvaluation",
    ]  # fmt: skip


PARTS: dict[str, Callable[[Path, float], list[str]]] = {"index": index_part, "score": score_part, "train": train_part}


def watched(words: list[str], said: Path) -> tuple[int, float, list[Sample]]:
    """Run a command and look at it.

    Args:
        words: of the command line, after ``g2r_lightning``.
        said: file for what it says.

    Returns:
        Exit status, seconds, samples.
    """
    samples: list[Sample] = []
    begun = time.perf_counter()
    with said.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "g2r_lightning", *words], stdout=file, stderr=file, env={**os.environ}
        )
        top = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                family = [top, *top.children(recursive=True)]
                samples.append(Sample(sum(p.memory_info().rss for p in family), sum(p.num_fds() for p in family)))
            except psutil.Error:  # one of them ended meanwhile
                pass
            time.sleep(0.5)
    return process.returncode, time.perf_counter() - begun, samples


def row(part: str, words: list[str], status: int, seconds: float, samples: list[Sample], said: int) -> tuple[str, bool]:
    """Return a part's row of the page, and whether it is as it should be."""
    quarter = max(len(samples) // 4, 1)
    early, late = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    memory = [statistics.median(one.memory for one in some) / MB for some in (early, late)]
    files = [statistics.median(one.files for one in some) for some in (early, late)]
    peak = max(one.memory for one in samples) / MB
    faults = [
        name
        for name, wrong in (
            (f"exit status {status}", status != 0),
            ("memory grows", memory[1] - memory[0] > GROWTH_MB),
            ("files stay open", files[1] - files[0] > FILES_MORE),
            ("says too much", said > SAID_MB * MB),
        )
        if wrong
    ]
    shown = " ".join(word for word in words if "/" not in word)
    cells = [
        part, f"`{shown}`", f"{seconds:.0f}", *(f"{value:.0f} MB" for value in (*memory, peak)),
        *(f"{value:.0f}" for value in files), f"{said / 1000:.0f} kB", ", ".join(faults) or "flat",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |", not faults


def main() -> int:
    """Run the parts that are asked for, and bring their rows into the page.

    Returns:
        1 where one of them is not flat.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, nargs="*", default=list(PARTS))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size")
    parser.add_argument("--output", type=Path, help="Markdown page")
    flags = parser.parse_args()
    rows, fine = {}, True
    for part in flags.part:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            words = PARTS[part](folder, flags.scale)
            status, seconds, samples = watched(words, folder / "said.txt")
            rows[part], good = row(part, words, status, seconds, samples, (folder / "said.txt").stat().st_size)
            fine &= good
            sys.stdout.write(f"{rows[part]}\n")
            if status:
                sys.stdout.write((folder / "said.txt").read_text(encoding="utf-8")[-2000:])
    if flags.output is not None:
        flags.output.write_text(page(rows, flags.output), encoding="utf-8")
    return int(not fine)


def page(rows: dict[str, str], before: Path) -> str:
    """Return the page with new rows; those of other parts stay."""
    known = before.read_text(encoding="utf-8").splitlines() if before.is_file() else []
    held = {line.split(" | ")[0].strip("| "): line for line in known if line.startswith("| ")}
    kept = {**{part: held[part] for part in PARTS if part in held}, **rows}
    machine = f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}."
    return HEAD + "\n".join(kept[part] for part in PARTS if part in kept) + f"\n\n{machine}\n"


if __name__ == "__main__":
    sys.exit(main())
