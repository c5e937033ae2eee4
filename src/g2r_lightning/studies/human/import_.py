"""Read what raters answered, from filled sheets and from the page's exports, and say what is wrong with it.

Nothing is dropped in silence. An answer is *invalid* where its value is none of the choices, or where its item was not
asked of its rater; *contradictory* where a reply is called specific that makes no sense; *duplicate* where a rater
answered an item twice: once counts where both agree, neither where they do not. What was asked and not answered is
*missing*.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from g2r_lightning.dialogue.readers.files import read_lines
from g2r_lightning.dialogue.text import half_character
from g2r_lightning.errors import DataError, G2RError
from g2r_lightning.paths import resolve_path
from g2r_lightning.studies.human.key import Item, StudyKey

YES, NO = ("yes", "y", "1", "true"), ("no", "n", "0", "false")
LEFT, RIGHT, TIE = ("a", "left"), ("b", "right"), ("tie", "same", "=")
FIELDS = {"ssa": ("sensible", "specific"), "preference": ("preference",)}
Kind = Literal["invalid", "contradictory", "duplicate", "missing"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One judgement.

    Args:
        task: ``ssa`` or ``preference``.
        rater: code of the rater.
        item: what was judged.
        value: for ``ssa`` (sensible, specific), each 0 or 1; for a preference the share of the item's first system: 1,
            0, or 1/2 for a tie.
        left: whether the left reply was preferred; ``None`` for a tie and for ``ssa``.
        seconds: spent on it, where recorded.
        place: ``file:line``.
    """

    task: str
    rater: str
    item: Item
    value: tuple[float, ...]
    left: bool | None
    seconds: float | None
    place: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a person has to look at.

    Args:
        kind: see the module.
        place: ``file:line``; the sheet's rater for what is missing.
        reason: what is wrong.
    """

    kind: Kind
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.kind}: {self.reason}"


@dataclass(frozen=True)
class Answers:
    """All that counts, and all that does not.

    Args:
        given: the answers that count.
        problems: in the order of the files, what is missing last.
    """

    given: list[Answer]
    problems: list[Problem]

    def of(self, task: str) -> list[Answer]:
        """Return the answers of one task."""
        return [answer for answer in self.given if answer.task == task]


def read_answers(paths: Sequence[str | Path], key: StudyKey) -> Answers:
    """Read the answers of files, or of all ``.csv`` and ``.jsonl`` files of folders.

    Raises:
        DataError: a file cannot be read at all, or has no column for its items.
        G2RError: there is no file, or no answer in any of them.
    """
    asked = {
        (task, rater, one.item): one.swapped
        for task, sheets in key.sheets.items()
        for rater, sheet in sheets.items()
        for one in sheet
    }
    items = {item.id: (task, item) for task, of_task in key.items.items() for item in of_task}
    problems: list[Problem] = []
    found: dict[tuple[str, str, str], list[Answer]] = {}
    for path in _files(paths):
        for line, record in _records(path):
            place = f"{path}:{line}"
            try:
                answer = _answer(record, key.study, items, asked, place, problems)
            except ValueError as error:
                problems.append(Problem("invalid", place, str(error)))
                continue
            if answer is not None:
                found.setdefault((answer.task, answer.rater, answer.item.id), []).append(answer)
    given = []
    for same in found.values():
        first, *others = same
        for other in others:
            agrees = "the same answer" if other.value == first.value else "another answer, so neither counts"
            problems.append(
                Problem("duplicate", other.place, f"{_named(other)}: answered at {first.place} too, {agrees}")
            )
        if all(other.value == first.value for other in others):
            given.append(first)
    if not given:
        raise G2RError("there is not one answer that counts" + "".join(f"\n  {problem}" for problem in problems[:10]))
    return Answers(given, problems + _missing(key, found))


def _missing(key: StudyKey, found: dict[tuple[str, str, str], list[Answer]]) -> list[Problem]:
    """Return one problem a rater and task that has open items, with the first of them."""
    missing = []
    for task, sheets in key.sheets.items():
        for rater, sheet in sheets.items():
            still = [one.item for one in sheet if (task, rater, one.item) not in found]
            if still:
                shown = ", ".join(still[:5]) + (" ..." if len(still) > 5 else "")
                reason = f"{len(still)} of {len(sheet)} items without a valid answer: {shown}"
                missing.append(Problem("missing", f"{task}, rater {rater}", reason))
    return missing


def _answer(
    record: dict[str, str],
    study: str,
    items: dict[str, tuple[str, Item]],
    asked: dict[tuple[str, str, str], bool],
    place: str,
    problems: list[Problem],
) -> Answer | None:
    """Return the answer of a line; ``None`` for a line that was left open.

    Raises:
        ValueError: it cannot count; says why.
    """
    name, rater = record.get("item", "").strip(), record.get("rater", "").strip()
    if name not in items:
        raise ValueError(f"item {name!r} is none of this study")
    if record.get("study", "").strip() not in ("", study):
        raise ValueError(f"this is an answer to the study {record['study']!r}, the key is of {study!r}")
    task, item = items[name]
    given = [record.get(field, "").strip().lower() for field in FIELDS[task]]
    if not any(given):
        return None
    if (task, rater, name) not in asked:
        raise ValueError(f"item {name} was not asked of rater {rater!r}")
    left: bool | None = None
    if task == "ssa":
        sensible = _choice("sensible", given[0], (NO, YES))
        if sensible == 0 and given[1] in YES:
            reason = f"{name} of rater {rater}: specific without making sense; counted as not specific"
            problems.append(Problem("contradictory", place, reason))
        value: tuple[float, ...] = (sensible, _choice("specific", given[1], (NO, YES)) if sensible else 0.0)
    else:
        chosen = _choice("preference", given[0], (LEFT, RIGHT, TIE))
        left = None if chosen == 2 else chosen == 0
        value = (0.5 if left is None else float(left != asked[task, rater, name]),)
    return Answer(task, rater, item, value, left, _seconds(record.get("seconds", "")), place)


def _choice(field: str, given: str, choices: tuple[tuple[str, ...], ...]) -> float:
    """Return the number of the choice that an answer is.

    Raises:
        ValueError: it is none; names the field, the answer and the choices.
    """
    for number, spellings in enumerate(choices):
        if given in spellings:
            return float(number)
    known = ", ".join(spellings[0] for spellings in choices)
    raise ValueError(f"{field} is {given!r}, expected one of {known}")


def _seconds(given: str) -> float | None:
    try:
        seconds = float(given)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e7 else None


def _named(answer: Answer) -> str:
    return f"{answer.item.id} of rater {answer.rater}"


def _files(paths: Sequence[str | Path]) -> Iterator[Path]:
    for given in paths:
        path = resolve_path(given)
        if not path.is_dir():
            yield path
            continue
        inside = sorted(each for each in path.iterdir() if each.suffix in (".csv", ".jsonl"))
        if not inside:
            raise G2RError(f"{path}: no .csv and no .jsonl file in this folder")
        yield from inside


def _records(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each answer's line number and fields, from CSV (commas, semicolons or tabs) or JSON lines."""
    if path.suffix == ".jsonl":
        yield from _json_records(path)
        return
    lines = [line for _, line in read_lines(path)]
    header = lines[0] if lines else ""
    try:
        mark = next(
            (mark for mark in (",", ";", "\t") if "item" in next(csv.reader([header], delimiter=mark), [])), None
        )
    except csv.Error as error:
        raise DataError(path, f"broken CSV: {error}", 1) from error
    if mark is None:
        raise DataError(path, 'no sheet: the first line has no column "item"; keep the header of the sheet', 1)
    reader = csv.DictReader((f"{line}\n" for line in lines), delimiter=mark, strict=True)
    try:
        names = reader.fieldnames or []
    except csv.Error as error:  # strict, where the look for the mark was not
        raise DataError(path, f"broken CSV: {error}", 1) from error
    while True:
        line = reader.line_num + 1  # where the record begins: contexts have line breaks of their own
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise DataError(path, f"broken CSV: {error}", line) from error
        if record is None:
            return
        yield line, {name: record[name] or "" for name in names}


def _json_records(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            record: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(path, f"broken JSON: {error}", number) from error
        if not isinstance(record, dict) or "item" not in record:
            raise DataError(path, 'no answer: expected an object with "item" and "rater"', number)
        fields = {str(name): "" if value is None else str(value) for name, value in record.items()}
        if any(half_character(text) for field in fields.items() for text in field):
            raise DataError(path, "half of a character (an unpaired surrogate, \\ud800 to \\udfff)", number)
        yield number, fields
