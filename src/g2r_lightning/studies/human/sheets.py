"""What raters get: a CSV sheet each, and one page for all that works without a network.

Neither holds a system's name, a file's name or a score; items bear numbers that were dealt at random.
"""

from __future__ import annotations

import csv
import io
import json
from importlib import resources
from pathlib import Path
from typing import Any

from g2r_lightning.paths import atomic_path
from g2r_lightning.studies.human.key import Asked, Item, StudyKey

SHEET_COLUMNS = {
    "ssa": ("study", "rater", "number", "item", "context", "reply", "sensible", "specific", "comment"),
    "preference": ("study", "rater", "number", "item", "context", "reply_a", "reply_b", "preference", "comment"),
}
PAGE_MARK = "/*STUDY*/"
GUIDE = """How to fill in a sheet

Each line is one judgement. X and Y talk, X has spoken last, and the reply is what Y says next.

sensible     yes or no: does the reply make sense here? Say no where it is confused, contradicts what was said, or
             belongs to another conversation.
specific     yes or no: is it specific to this conversation, rather than something that would fit almost anywhere
             ("I see", "that's nice")? A reply that makes no sense is not specific: leave the cell empty.
preference   A, B or tie: which reply would you rather get, if you were X?
comment      whatever you like to add.

Fill in all cells, change nothing else, and save as CSV. Please do not talk about replies with other raters before all
are done.
"""


def write_study(key: StudyKey, folder: Path, ties: bool = True) -> list[Path]:
    """Write ``sheets/`` (a CSV a rater and task, the page, a guide) and ``key.json``; return all paths.

    Args:
        key: of the study.
        folder: where to.
        ties: whether a preference may be none.
    """
    written = []
    for task, sheets in key.sheets.items():
        for rater, sheet in sheets.items():
            written.append(folder / "sheets" / f"{task}-{rater}.csv")
            _write(written[-1], sheet_csv(key, task, rater, sheet))
    written += [folder / "sheets" / "rate.html", folder / "sheets" / "GUIDE.txt", folder / "key.json"]
    _write(written[-3], page(key, ties))
    _write(written[-2], GUIDE)
    key.save(written[-1])
    return written


def sheet_csv(key: StudyKey, task: str, rater: str, sheet: list[Asked]) -> str:
    """Return one rater's sheet of one task as CSV, led by a byte order mark, by which spreadsheets know UTF-8."""
    items = {item.id: item for item in key.items[task]}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(SHEET_COLUMNS[task])
    for number, asked in enumerate(sheet, start=1):
        item = items[asked.item]
        turns = key.contexts[item.context]["utterances"]
        context = "\n".join(f"{speaker(len(turns) - place)}: {turn}" for place, turn in enumerate(turns))
        shown = [plain_cell(reply) for reply in replies_of(item, asked)]
        answers = [""] * (len(SHEET_COLUMNS[task]) - 5 - len(shown))
        writer.writerow([key.study, rater, number, item.id, plain_cell(context), *shown, *answers])
    return "\ufeff" + text.getvalue()


def page(key: StudyKey, ties: bool = True) -> str:
    """Return the page: all sheets, saved in the browser as they are filled in, exported as CSV or JSON lines."""
    template = resources.files("g2r_lightning.studies.human").joinpath("page.html").read_text(encoding="utf-8")
    told = json.dumps(page_data(key, ties), ensure_ascii=False)
    for mark, spelt in (("<", "\\u003c"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        told = told.replace(mark, spelt)  # a reply may hold "</script>"
    return template.replace(PAGE_MARK, told)


def page_data(key: StudyKey, ties: bool) -> dict[str, Any]:
    """Return what the page knows: contexts, items with the replies in the order of their sides, and no names."""
    sheets: dict[str, dict[str, list[dict[str, Any]]]] = {rater: {} for rater in key.raters}
    for task, of_task in key.sheets.items():
        items = {item.id: item for item in key.items[task]}
        for rater, sheet in of_task.items():
            sheets[rater][task] = [
                {
                    "item": asked.item,
                    "context": items[asked.item].context,
                    "replies": replies_of(items[asked.item], asked),
                }
                for asked in sheet
            ]
    contexts = {id_: context["utterances"] for id_, context in key.contexts.items()}
    return {"study": key.study, "title": key.title, "ties": ties, "contexts": contexts, "sheets": sheets}


def replies_of(item: Item, asked: Asked) -> list[str]:
    """Return an item's replies as they stand on a sheet, the left one first."""
    return list(reversed(item.replies)) if asked.swapped else list(item.replies)


def speaker(turns_before_reply: int) -> str:
    """Return who spoke: X the turn before the reply, which is Y's, and so on.

    >>> [speaker(turns) for turns in (3, 2, 1)]
    ['X', 'Y', 'X']
    """
    return "X" if turns_before_reply % 2 else "Y"


def plain_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula.

    >>> plain_cell("=) nice"), plain_cell("nice")
    ("'=) nice", 'nice')
    """
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
