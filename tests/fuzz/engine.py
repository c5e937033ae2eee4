"""Make files of broken lines, have them read, and keep what was new."""

from __future__ import annotations

import random
import re
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.mutations import NOT_UTF8
from fuzz.targets import Target

LINES_A_FILE = 100
POOL = 5000
WHOLE_FILE = 0.02
"""Share of files with a fault that concerns all of it: bytes that are no UTF-8, a cut end, a broken header or array."""


@dataclass
class Report:
    """What became of a target's lines.

    Args:
        lines: given.
        files: they stood in.
        used: came out as dialogues or records.
        skipped: counted as unusable.
        stopped: files that ended in an error of ours.
        reasons: how often each was said, numbers and quoted text apart.
        faults: (seed of the file, traceback) of what should not have happened.
    """

    lines: int = 0
    files: int = 0
    used: int = 0
    skipped: int = 0
    stopped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)


def fuzz(target: Target, lines: int, folder: Path, seed: int = 0, lines_a_file: int = LINES_A_FILE) -> Report:
    """Feed a target with so many broken lines, at least.

    Args:
        target: what reads.
        lines: how many.
        folder: for the files; the last one stays there.
        seed: of all draws: the same lines every time.
        lines_a_file: most lines of one file; a format whose first fault ends the reading gets files of any size.
    """
    report, pool = Report(), list(target.seeds)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"fuzzed{target.suffix}"
    while report.lines < lines:
        number = seed * 1_000_003 + report.files
        draw = random.Random(number)
        most = draw.choice([1, 1, 2, 4] if target.stops else [1, 2, 5, lines_a_file])
        chosen = _lines(target, pool, draw, min(most, lines - report.lines))
        content = _content(target, chosen, draw)
        path.write_bytes(content)
        report.files += 1
        report.lines += len(chosen)
        try:
            outcome = target.read(path, content.count(b"\n") + 1)
        except Exception:
            report.faults.append((number, traceback.format_exc()))
            continue
        report.used += outcome.used
        report.skipped += outcome.skipped
        report.stopped += not outcome.used and bool(outcome.said)
        new = {_template(said) for said in outcome.said} - report.reasons.keys()
        report.reasons.update(map(_template, outcome.said))
        if new and len(pool) < POOL:
            pool += chosen[:20]
    return report


def _lines(target: Target, pool: list[bytes], draw: random.Random, count: int) -> list[bytes]:
    """Return lines, few or many of them broken: what is whole must not suffer from its neighbours."""
    start = draw.randrange(len(pool))  # in their order, so that what spans several lines stays together
    lines = [pool[(start + place) % len(pool)] for place in range(count)]
    share = draw.choice([0.05, 0.3, 0.9])
    return [target.mutation(line, draw) if draw.random() < share else line for line in lines]


def _content(target: Target, lines: list[bytes], draw: random.Random) -> bytes:
    whole = draw.random() < WHOLE_FILE
    header = target.mutation(target.header, draw) if whole and target.header else target.header
    body = (
        b"[" + b",\n".join(lines) + b"]" if target.array else target.apart.join([*([header] if header else []), *lines])
    )
    if whole:
        place = draw.randrange(len(body) + 1)
        body = draw.choice(
            [body[:place], body[:place] + draw.choice(NOT_UTF8) + body[place:], b"\xef\xbb\xbf" + body, b""]
        )
    return body + draw.choice([b"", b"\n", b"\r\n"])


def _template(said: str) -> str:
    """Return a message without its numbers and quoted text: what kind of fault it tells of."""
    short = re.sub(r"'[^']*'|\"[^\"]*\"|\[.*\]|\{.*\}", "…", said.splitlines()[0] if said else "")
    return re.sub(r"\d+", "#", re.sub(r"dialogue \S+", "dialogue …", short))[:90]
