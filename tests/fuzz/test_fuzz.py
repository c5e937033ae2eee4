"""A seeded part of `make fuzz` (100,000 lines a reader), and whether the search finds a reader that is wrong."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.engine import fuzz
from fuzz.mutations import broken_bytes, broken_fields, broken_json
from fuzz.targets import Outcome, targets

LINES = 400
ALL = targets()


@pytest.mark.parametrize("name", ALL)
def test_broken_lines_give_usable_dialogues_counted_skips_or_an_error_of_ours(name, tmp_path):
    report = fuzz(ALL[name], LINES, tmp_path, seed=1)
    assert not report.faults, report.faults[0][1]
    assert report.lines == LINES
    assert report.used  # whole lines among broken ones are read
    assert report.reasons or name in ("read_responses", "experiment YAML")  # else nothing was broken


def test_a_reader_that_is_wrong_once_in_many_lines_is_found(tmp_path):
    def careless(path: Path, lines: int) -> Outcome:
        for line in path.read_bytes().splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and isinstance(record.get("turns"), list):
                " ".join(record["turns"])  # of something that is no text: a TypeError
        return Outcome(1, 0, ())

    report = fuzz(replace(ALL["JsonlReader"], read=careless), 1000, tmp_path)
    assert report.faults
    assert "TypeError" in report.faults[0][1]


def test_the_same_seed_breaks_the_same_lines(tmp_path):
    seen: list[list[bytes]] = [[], []]
    for contents in seen:

        def read(path: Path, lines: int, contents: list[bytes] = contents) -> Outcome:
            contents.append(path.read_bytes())
            return Outcome(1, 0, ())

        fuzz(replace(ALL["ConvAI2Reader"], read=read), 200, tmp_path, seed=7)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 1


@pytest.mark.parametrize("mutation", [broken_bytes, broken_json, broken_fields(b",")])
def test_a_mutation_keeps_a_line_one_line_and_changes_most(mutation):
    line = b'{"turns": ["hi, you", "hello, there"], "id": "a", "scores": [1.5, null]}'
    broken = [mutation(line, random.Random(seed)) for seed in range(200)]
    assert all(b"\n" not in one for one in broken)
    assert sum(one != line for one in broken) > 120
    assert len(set(broken)) > 80
