"""Studies on made-up replies, and answers to them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

from g2r_lightning.studies.human.export import Study, make_study
from g2r_lightning.studies.human.key import Asked, Item, StudyKey
from g2r_lightning.studies.replies import Answered

NAMES = ("zeta-model", "omega-model", "sigma-model")


def systems(contexts: int = 12, names: tuple[str, ...] = NAMES) -> dict[str, list[Answered]]:
    """Replies of several systems to the same contexts, three contexts a dialogue."""
    return {
        name: [
            Answered((f"hello {c // 3}", f"turn {c}", f'they said "{c}", ok'), (f"reply {c} by {place}",), f"d{c // 3}")
            for c in range(contexts)
        ]
        for place, name in enumerate(names)
    }


def study(contexts: int = 12, names: tuple[str, ...] = NAMES, **settings: object) -> StudyKey:
    """A study of them, all contexts unless told."""
    given = {"contexts": None, "raters": 4, "ratings": 2, **settings}
    return make_study(systems(contexts, names), {name: f"runs/{name}.jsonl" for name in names}, Study(**given))


Judge = Callable[[str, Item, Asked], dict[str, str]]


def answers(key: StudyKey, judge: Judge) -> str:
    """The answers that ``judge`` gives for every rater, item by item, as the page exports them."""
    text = io.StringIO()
    columns = ["study", "rater", "task", "item", "sensible", "specific", "preference", "seconds", "comment"]
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    for task, sheets in key.sheets.items():
        items = {item.id: item for item in key.items[task]}
        for rater, sheet in sheets.items():
            for asked in sheet:
                given = judge(rater, items[asked.item], asked)
                writer.writerow({"study": key.study, "rater": rater, "task": task, "item": asked.item, **given})
    return text.getvalue()


def write(path: Path, text: str) -> Path:
    """Write a file and return its path."""
    path.write_text(text, encoding="utf-8", newline="")
    return path
