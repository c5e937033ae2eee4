"""A seeded part of `make fuzz` (100,000 lines a reader), and whether the search finds a reader that is wrong."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.engine import fuzz
from fuzz.guided import mutator, page, searched, seed_files
from fuzz.mutations import broken_bytes, broken_fields, broken_json
from fuzz.targets import Outcome, targets

LINES = 400
ALL = targets()


@pytest.mark.parametrize("name", ALL)
def test_broken_lines_give_usable_dialogues_counted_skips_or_an_error_of_ours(name, tmp_path):
    report = fuzz(ALL[name], LINES, tmp_path, seed=1)
    assert not report.faults, ascii(report.faults[0][1])
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


@pytest.mark.parametrize("name", ALL)
def test_the_guided_search_starts_from_files_that_are_read_and_breaks_them(name, tmp_path):
    target = ALL[name]
    path = tmp_path / f"read{target.suffix}"
    files = seed_files(target, random.Random(0), 20)
    used = []
    for content in files:
        path.write_bytes(content)
        used.append(target.read(path, content.count(b"\n") + 1).used)
    assert sum(used) > 0
    mutate = mutator(target)
    broken = {mutate(files[seed % len(files)], 2000, seed) for seed in range(200)}
    assert len(broken - set(files)) > 100
    assert max(map(len, broken)) <= 2000


def test_a_guided_search_whose_process_dies_is_a_fault_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    row = searched("no such reader", tmp_path / "own", 10, 0)  # or no Atheris at all
    assert "Error" in row["faults"]["the process ended"]
    old = tmp_path / "page.md"
    old.write_text("| of before | 5 | 1 | 2 | 3 | 0 | 1 |\n", encoding="utf-8")
    text = page({"here": row}, 0, old)
    assert "| of before | 5 |" in text
    assert "| here | 0 | 0 | 0 | 0 | 1 |" in text
