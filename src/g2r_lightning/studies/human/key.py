"""The key of a study: which system stands behind each item, and who was asked what. Raters never see it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from g2r_lightning.errors import G2RError
from g2r_lightning.paths import atomic_path, resolve_path

SCHEMA_VERSION = 1
Task = Literal["ssa", "preference"]
TASKS: tuple[Task, ...] = ("ssa", "preference")


@dataclass(frozen=True, slots=True)
class Item:
    """What one judgement is about.

    Args:
        id: as raters see it: a number that tells nothing.
        context: id of the context.
        systems: the system that replied; two for a preference.
        replies: what each of them replied.
    """

    id: str
    context: str
    systems: tuple[str, ...]
    replies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """An item on a rater's sheet.

    Args:
        item: its id.
        swapped: whether the second system's reply stands on the left.
    """

    item: str
    swapped: bool = False


@dataclass(frozen=True)
class StudyKey:
    """All of a study but the answers.

    Args:
        study: its id, on every sheet and in every answer.
        title: as raters see it.
        seed: of choices and orders.
        systems: name -> where its replies come from.
        contexts: id -> ``dialogue`` and ``utterances``.
        items: task -> its items.
        sheets: task -> rater -> the sheet, in order.
        identical: pairs that gave one reply to a context: a tie without asking. (context, first, second).
        ratings: judgements an item.
    """

    study: str
    title: str
    seed: int
    systems: dict[str, str]
    contexts: dict[str, dict[str, Any]]
    items: dict[str, list[Item]]
    sheets: dict[str, dict[str, list[Asked]]]
    identical: list[tuple[str, str, str]]
    ratings: int

    @property
    def raters(self) -> list[str]:
        """Codes of all raters."""
        return sorted({rater for sheets in self.sheets.values() for rater in sheets})

    def save(self, path: Path) -> None:
        """Write the key as JSON."""
        with atomic_path(path) as temporary:
            text = json.dumps(
                {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}, ensure_ascii=False, indent=1
            )
            temporary.write_text(text + "\n", encoding="utf-8")


def load_key(path: str | Path) -> StudyKey:
    """Read a key.

    Raises:
        G2RError: there is no such file, or it is no key.
    """
    source = resolve_path(path)
    source = source / "key.json" if source.is_dir() else source
    try:
        held = json.loads(source.read_text(encoding="utf-8"))
        version = held.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise G2RError(f"{source}: a key of schema version {version}, this program reads {SCHEMA_VERSION}")
        held["items"] = {
            task: [Item(i["id"], i["context"], tuple(i["systems"]), tuple(i["replies"])) for i in items]
            for task, items in held["items"].items()
        }
        held["sheets"] = {
            task: {rater: [Asked(**asked) for asked in sheet] for rater, sheet in sheets.items()}
            for task, sheets in held["sheets"].items()
        }
        held["identical"] = [tuple(each) for each in held["identical"]]
        return StudyKey(**held)
    except FileNotFoundError as error:
        raise G2RError(f"{source}: no such file; --key names the key.json that `human export` wrote") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise G2RError(f"{source}: no key of `human export`, or a damaged one ({error!r})") from error
