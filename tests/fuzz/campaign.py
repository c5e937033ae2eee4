"""The long run: 100,000 broken lines for every reader, and some thousand broken experiments for the parser.

    PYTHONPATH=tests python -m fuzz.campaign --lines 100000 --output docs/results/fuzz.md

A fault is whatever is no error of ours: each is printed with the seed of its file, and the exit status is 1.
"""

from __future__ import annotations

import datetime
import os
import platform
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fuzz.engine import Report, fuzz
from fuzz.mutations import broken_bytes
from fuzz.pages import page_of, parser_of
from fuzz.targets import ROOT, Target, targets
from g2r_lightning.errors import G2RError

SHOWN = 5


@dataclass(frozen=True)
class Row:
    """A target's part of the page.

    Args:
        name: of the target.
        report: what became of its lines.
        seconds: it took.
    """

    name: str
    report: Report
    seconds: float


def parsed(files: int, folder: Path, seed: int) -> Report:
    """Give the parser of `fit` so many experiments with broken lines; nothing is built or trained."""
    from g2r_lightning.configuration import ExperimentCLI

    report = Report()
    whole = [path.read_bytes() for path in sorted((ROOT / "experiments").glob("*.yaml"))]
    path = folder / "experiment.yaml"
    for number in range(files):
        draw = random.Random(seed * 1_000_003 + number)
        lines = draw.choice(whole).splitlines()
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(lines))
            lines[place] = broken_bytes(lines[place], draw)
        path.write_bytes(b"\n".join(lines))
        report.lines += len(lines)
        report.files += 1
        try:
            ExperimentCLI("fit", ["-c", str(path)], ())
            report.used += 1
        except G2RError as error:
            report.stopped += 1
            report.reasons[str(error).splitlines()[0][:60]] += 1
        except Exception:
            import traceback

            report.faults.append((number, traceback.format_exc()))
    return report


def page(rows: list[Row], seed: int, before: Path) -> str:
    """Return the results as Markdown; rows of readers that were not run stay as they were."""
    today = datetime.datetime.now(datetime.timezone.utc)
    head = [
        "# Broken lines, read", "",
        "Made by `make fuzz`. Real and sample lines are broken (pieces cut, doubled, replaced; values of JSON put in",
        "place of others; fields of text formats moved; now and then a byte that is no UTF-8, a cut end, 3,000",
        "brackets) and read in files of 1 to 100 lines. Lines that made a reader say something new are broken further.",
        "*Used*: came out as dialogues, contexts, texts or settings, each checked to be usable again. *Skipped*:",
        "counted, with line and reason. *Refused*: files that gave nothing but an error of ours. *Faults*: anything",
        "else, a traceback or a wrong value.", "",
        f"Seed {seed}, {platform.system()}, Python {platform.python_version()}, {today:%Y-%m-%d}.",
        "",
        "| reader | lines | files | used | skipped | files refused | kinds of message | faults | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    made = {}
    for row in rows:
        one = row.report
        made[row.name] = (
            f"| {row.name} | {one.lines:,} | {one.files:,} | {one.used:,} | {one.skipped:,} | {one.stopped:,} | "
            f"{len(one.reasons)} | {len(one.faults)} | {row.seconds:.0f} |"
        )
    return page_of(head, made, before)


def main() -> int:
    """Run, print, write the page.

    Returns:
        1 where a fault was found.
    """
    parser = parser_of(__doc__)
    parser.add_argument("--lines", type=int, default=100_000, help="of each reader")
    parser.add_argument("--experiments", type=int, default=1000, help="given to the parser")
    flags = parser.parse_args()
    data = os.environ.get("G2R_DATA")
    known: dict[str, Target] = targets(Path(data) if data else None)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, target in known.items():
            if not flags.only or name in flags.only:
                begun = time.perf_counter()
                report = fuzz(target, flags.lines, Path(folder), flags.seed)
                rows.append(Row(name, report, time.perf_counter() - begun))
                _tell(rows[-1])
                _write(rows, flags.seed, flags.output)
        if flags.experiments and not flags.only:
            begun = time.perf_counter()
            rows.append(Row("parser of `fit`", parsed(flags.experiments, Path(folder), flags.seed), 0.0))
            rows[-1] = Row(rows[-1].name, rows[-1].report, time.perf_counter() - begun)
            _tell(rows[-1])
            _write(rows, flags.seed, flags.output)
    return int(any(row.report.faults for row in rows))


def _write(rows: list[Row], seed: int, output: Path | None) -> None:
    """Write the page, after each reader: a stop loses one."""
    if output is not None:
        output.write_text(page(rows, seed, output), encoding="utf-8")


def _tell(row: Row) -> None:
    one = row.report
    sys.stdout.write(
        f"{row.name}: {one.lines:,} lines, {one.used:,} used, {len(one.faults)} faults, {row.seconds:.0f} s\n"
    )
    for number, trace in one.faults[:SHOWN]:
        sys.stdout.write(f"  seed of the file {number}\n{trace}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
