"""The same readers under a coverage-guided search: Atheris (libFuzzer) sees which branches a file takes, and keeps it.

    PYTHONPATH=tests python -m fuzz.guided --runs 20000 --output docs/results/fuzz_guided.md

The other search (:mod:`fuzz.engine`) goes by what a reader says; this one by the edges of its bytecode, so it also sees
branches that say nothing. Its mutations are those of :mod:`fuzz.mutations`, which keep a line readable.
A file that ends in something else than an outcome of ours, or takes over 20 seconds, is a fault; it stays in
``.cache/fuzz``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuzz.pages import page_of, parser_of

if TYPE_CHECKING:
    from fuzz.targets import Target

FOLDER = Path(".cache") / "fuzz"
SEED_FILES = 200
LONGEST = 20_000
SLOWEST_S = 20
EVERY = 500
"""Runs between two writings of the child's state: libFuzzer leaves without returning."""
PROGRESS = re.compile(r"#(\d+)\s+(INITED|DONE|pulse|NEW|REDUCE)\s+cov: (\d+) ft: (\d+) corp: (\d+)")


def seed_files(target: Target, draw: random.Random, count: int = SEED_FILES) -> list[bytes]:
    """Return files of one to four whole lines, as the reader expects them.

    Args:
        target: its lines.
        draw: which of them.
        count: most files.
    """
    files = []
    for _ in range(count):
        start = draw.randrange(len(target.seeds))
        lines = [target.seeds[(start + i) % len(target.seeds)] for i in range(draw.randint(1, 4))]
        if target.array:
            files.append(b"[" + b",".join(lines) + b"]")
        else:
            files.append(target.apart.join([*([target.header] if target.header else []), *lines]))
    return [file for file in files if len(file) <= LONGEST]


def mutator(target: Target) -> Callable[[bytes, int, int], bytes]:
    """Return libFuzzer's custom mutator: a line broken as its format is, added or dropped; now and then just bytes.

    libFuzzer's own (``atheris.Mutate``) is not to be had with the libFuzzer that Atheris 3.0 brings: it says that
    ``Fuzz()`` must be called before, although it was.

    Args:
        target: its format.
    """
    from fuzz.mutations import broken_bytes

    def mutate(content: bytes, most: int, seed: int) -> bytes:
        """Change a file."""
        draw = random.Random(seed)
        way = draw.random()
        if way < 0.2:  # across lines too, which the other mutations never are
            place = draw.randrange(len(content) + 1)
            end = min(len(content), place + draw.choice([1, 2, 10, 100]))
            return (content[:place] + broken_bytes(content[place:end], draw) + content[end:])[:most]
        if target.array:
            return target.mutation(content, draw)[:most]
        lines = content.split(target.apart)
        place = draw.randrange(len(lines))
        if way < 0.3:
            lines.insert(place, draw.choice(target.seeds))
        elif way < 0.35:
            del lines[place]
        else:
            lines[place] = target.mutation(lines[place], draw)
        return target.apart.join(lines)[:most]

    return mutate


def search(name: str, folder: Path, runs: int, seed: int) -> None:
    """Search one reader, in this process, which libFuzzer ends; ``state.json`` in the folder has what was found.

    Args:
        name: of the reader.
        folder: for its corpus, its faults and the file that is read.
        runs: files to be read.
        seed: of all draws.
    """
    import atheris

    with atheris.instrument_imports(include=["g2r_lightning"]):
        from fuzz.targets import targets
    data = os.environ.get("G2R_DATA")
    target = targets(Path(data) if data else None)[name]
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(seed_files(target, random.Random(seed))):
        (corpus / f"seed-{number}").write_bytes(content)
    path = folder / f"read{target.suffix}"
    state: dict[str, Any] = {"runs": 0, "faults": {}}

    def one(content: bytes) -> None:
        """Read one file."""
        path.write_bytes(content)
        state["runs"] += 1
        try:
            target.read(path, content.count(b"\n") + 1)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
            if place not in state["faults"]:
                kept = folder / f"fault-{len(state['faults'])}{target.suffix}"
                kept.write_bytes(content)
                state["faults"][place] = traceback.format_exc()
                _write(folder, state)
        if state["runs"] % EVERY == 0:
            _write(folder, state)

    flags = [f"-runs={runs}", f"-seed={seed + 1}", f"-max_len={LONGEST}", f"-timeout={SLOWEST_S}", "-rss_limit_mb=4096"]
    atheris.Setup(
        [sys.argv[0], *flags, f"-artifact_prefix={folder}/", str(corpus)],
        one,
        custom_mutator=mutator(target),
    )
    atheris.Fuzz()


def _write(folder: Path, state: dict[str, Any]) -> None:
    part = folder / "state.part"
    part.write_text(json.dumps(state), encoding="utf-8")
    part.replace(folder / "state.json")


def searched(name: str, folder: Path, runs: int, seed: int) -> dict[str, Any]:
    """Search one reader in a process of its own.

    Args:
        name: of the reader.
        folder: for its files.
        runs: files to be read.
        seed: of all draws.

    Returns:
        ``runs``, ``faults`` (place to traceback), ``at_first`` and ``at_last`` (edges that the seeds and that all files
        took), ``corpus`` (files kept) and ``seconds``.
    """
    folder.mkdir(parents=True)
    words = ["--reader", name, "--folder", str(folder), "--runs", str(runs), "--seed", str(seed)]
    begun = time.perf_counter()
    child = subprocess.run(
        [sys.executable, "-m", "fuzz.guided", *words], check=False, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    said = child.stderr.decode("utf-8", "replace")
    state_file = folder / "state.json"
    state = json.loads(state_file.read_text(encoding="utf-8")) if state_file.is_file() else {"runs": 0, "faults": {}}
    if child.returncode:
        state["faults"]["the process ended"] = said[-3000:]
    found = PROGRESS.findall(said)
    first = next((line for line in found if line[1] == "INITED"), None)
    return {
        "runs": int(found[-1][0]) if found else state["runs"],
        "faults": state["faults"],
        "at_first": int(first[2]) if first else 0,
        "at_last": int(found[-1][2]) if found else 0,
        "corpus": int(found[-1][4]) if found else 0,
        "seconds": time.perf_counter() - begun,
    }


def page(rows: dict[str, dict[str, Any]], seed: int, before: Path) -> str:
    """Return the results as Markdown; rows of readers that were not run stay as they were.

    Args:
        rows: reader to what :func:`searched` returned.
        seed: of all draws.
        before: the page as it is.
    """
    today = datetime.datetime.now(datetime.timezone.utc)
    head = [
        "# Files found by their coverage", "",
        "Made by `make fuzz-guided`. Atheris (libFuzzer) starts from files of one to four whole lines, changes them,",
        "and keeps each that takes an edge of the package's bytecode which none took before. *Edges*: taken by the",
        "files it started from, and by all that it made. *Faults*: files that ended in something else than what a",
        "reader may give (usable dialogues, counted skips, an error of ours), or took over 20 seconds; each place of",
        "the code once.", "",
        f"Seed {seed}, {platform.system()}, Python {platform.python_version()}, {today:%Y-%m-%d}.", "",
        "| reader | files read | edges at the start | edges at the end | files kept | faults | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    made = {
        name: f"| {name} | {row['runs']:,} | {row['at_first']} | {row['at_last']} | {row['corpus']} | "
        f"{len(row['faults'])} | {row['seconds']:.0f} |"
        for name, row in rows.items()
    }
    return page_of(head, made, before)


def main() -> int:
    """Search every reader, print, write the page.

    Returns:
        1 where a fault was found.
    """
    parser = parser_of(__doc__)
    parser.add_argument("--runs", type=int, default=20_000, help="files for each reader")
    parser.add_argument("--reader", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.reader:
        search(flags.reader, flags.folder, flags.runs, flags.seed)
        return 0
    from fuzz.targets import targets

    rows: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(targets()):
        if flags.only and name not in flags.only:
            continue
        folder = FOLDER / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        row = rows[name] = searched(name, folder, flags.runs, flags.seed)
        sys.stdout.write(
            f"{name}: {row['runs']:,} files, edges {row['at_first']} to {row['at_last']}, "
            f"{len(row['faults'])} faults, {row['seconds']:.0f} s\n"
        )
        for place, trace in row["faults"].items():
            sys.stdout.write(f"  {place}, files in {folder}\n{trace}\n")
        sys.stdout.flush()
        if flags.output is not None:
            flags.output.write_text(page(rows, flags.seed, flags.output), encoding="utf-8")
    return int(any(row["faults"] for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
