"""``human export`` writes blinded sheets; ``human import`` reads what raters answered.

Unlike the other commands these need no experiment: their settings are flags, or a YAML of their own (``-c``).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from g2r_lightning.config_errors import innermost
from g2r_lightning.errors import ConfigError
from g2r_lightning.paths import atomic_path, resolve_path
from g2r_lightning.studies.human.agreement import agreement, rater_table
from g2r_lightning.studies.human.export import Study, make_study
from g2r_lightning.studies.human.figures import preferences, ssa, ssa_differences
from g2r_lightning.studies.human.import_ import Answers, read_answers
from g2r_lightning.studies.human.key import TASKS, Task, load_key
from g2r_lightning.studies.human.sheets import write_study
from g2r_lightning.studies.replies import Answered, read_replies, read_run

log = logging.getLogger(__name__)
USAGE = (
    "`human export --output=FOLDER --systems.NAME=FILE ...`, or "
    "`human import --key=FOLDER/key.json --answers='[FILE, ...]'`"
)
SHOWN = 20


@dataclass(frozen=True)
class HumanExport:
    """Sheets for raters.

    Args:
        output: folder for ``sheets/``, which raters get, and ``key.json``, which they do not.
        systems: name -> its replies: JSONL of contexts and replies (what ``predict`` writes), or the folder of a run.
        references: a run whose test examples' human responses are rated too, as the system ``human``.
        tasks: ``ssa`` (sensible? specific?), ``preference`` (which of two?), or both.
        pairs: systems that are compared; each with each by default.
        contexts: how many, of those that all systems answered; ``null`` takes all.
        raters: how many.
        ratings: judgements an item, each by another rater.
        turns: last utterances of a context that are shown; ``null`` shows all.
        ties: whether a preference may be "no difference".
        title: of the page.
        seed: of choices and orders.
    """

    output: str | None = None
    systems: dict[str, str] = field(default_factory=dict)
    references: str | None = None
    tasks: list[Task] = field(default_factory=lambda: list(TASKS))
    pairs: list[tuple[str, str]] | None = None
    contexts: int | None = 100
    raters: int = 3
    ratings: int = 3
    turns: int | None = None
    ties: bool = True
    title: str = "How good are these replies?"
    seed: int = 0


@dataclass(frozen=True)
class HumanImport:
    """What raters answered.

    Args:
        key: the study's ``key.json``.
        answers: filled sheets and exports of the page (``.csv``, ``.jsonl``), or folders of such.
        output: file for all figures; ``results.json`` beside the key by default.
        strict: refuse answers with anything wrong about them, instead of reporting it.
        seed: of the bootstrap.
    """

    key: str | None = None
    answers: list[str] = field(default_factory=list)
    output: str | None = None
    strict: bool = False
    seed: int = 0


def human(arguments: Sequence[str]) -> None:
    """Run one of the two.

    Raises:
        G2RError: a setting, the replies or the answers cannot be used.
    """
    verb, *flags = [*arguments] or [""]
    if verb in ("-h", "--help"):
        sys.stdout.write(f"{USAGE}; --help after either shows its settings\n")
    elif verb == "export":
        export_sheets(HumanExport(**_parsed("export", HumanExport, flags)))
    elif verb == "import":
        import_answers(HumanImport(**_parsed("import", HumanImport, flags)))
    else:
        raise ConfigError(f"human {verb}: say {USAGE}")


def export_sheets(settings: HumanExport) -> None:
    """Write sheets, page and key.

    Raises:
        G2RError: no folder is named or it holds a study, or the systems' replies cannot be used.
    """
    if settings.output is None:
        raise ConfigError("name a folder for the sheets: --output=FOLDER")
    folder = resolve_path(settings.output)
    if (folder / "key.json").exists():
        raise ConfigError(f"{folder}: holds a study already, whose answers its key belongs to; choose another --output")
    study = Study(
        tasks=tuple(settings.tasks), pairs=None if settings.pairs is None else tuple(settings.pairs),
        **{name: getattr(settings, name) for name in ("contexts", "raters", "ratings", "turns", "title", "seed")},
    )  # fmt: skip
    systems: dict[str, list[Answered]] = {name: read_replies(path) for name, path in settings.systems.items()}
    paths = dict(settings.systems)
    if settings.references is not None:
        if "human" in systems:
            raise ConfigError("--references adds a system `human`, and --systems has one; give that one another name")
        systems["human"] = [one for found in read_run(settings.references) for one in found.human]
        paths["human"] = f"{settings.references} (human responses)"
    key = make_study(systems, paths, study)
    write_study(key, folder, settings.ties)
    counts = ", ".join(f"{task}: {len(items)} items" for task, items in key.items.items())
    log.info(
        "%d contexts, %s, %d raters. Give raters %s; keep %s to yourself",
        len(key.contexts), counts, settings.raters, folder / "sheets", folder / "key.json",
    )  # fmt: skip
    if key.identical:
        log.info("%d times both systems of a pair gave one reply: counted as ties, not asked", len(key.identical))


def import_answers(settings: HumanImport) -> None:
    """Print and write what raters answered.

    Raises:
        G2RError: key or answers cannot be used; with ``strict``, anything is wrong with an answer.
    """
    if settings.key is None or not settings.answers:
        raise ConfigError(f"name key and answers: {USAGE}")
    key = load_key(settings.key)
    answers = read_answers(settings.answers, key)
    if settings.strict and answers.problems:
        raise ConfigError("the answers have faults:" + "".join(f"\n  {problem}" for problem in answers.problems))
    found = {
        "study": key.study,
        "ssa": ssa(answers, key, settings.seed),
        "ssa_differences": ssa_differences(answers, key, settings.seed),
        "preference": preferences(answers, key, settings.seed),
        "agreement": agreement(answers),
        "raters": rater_table(answers, key),
        "problems": [dataclasses.asdict(problem) for problem in answers.problems],
    }
    source = resolve_path(settings.key)
    default = (source if source.is_dir() else source.parent) / "results.json"
    output = default if settings.output is None else Path(settings.output).expanduser()
    with atomic_path(output) as temporary:
        temporary.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _report(found, answers)
    log.info("wrote all figures to %s", output)


def _parsed(verb: str, kind: type, flags: Sequence[str]) -> dict[str, Any]:
    """Return the settings that flags and files give."""
    parser = ArgumentParser(
        prog=f"python -m g2r_lightning human {verb}", exit_on_error=False, description=kind.__doc__, allow_abbrev=False
    )
    parser.add_argument("-c", "--config", action="config")
    parser.add_class_arguments(kind)
    try:
        settings = parser.parse_args(list(flags))
    except (argparse.ArgumentError, TypeError, ValueError, OSError) as error:
        raise ConfigError(f"human {verb}: {innermost(str(error).strip())}") from error
    return {name.name: settings[name.name] for name in dataclasses.fields(kind)}


def _report(found: dict[str, Any], answers: Answers) -> None:
    """Print figures, agreement, raters and what is wrong."""
    console = Console()
    for title in ("ssa", "ssa_differences", "preference", "agreement"):
        if found[title]:
            console.print(_table(title.replace("_", " "), [{"": name, **row} for name, row in found[title].items()]))
    for task in dict.fromkeys(row["task"] for row in found["raters"]):
        rows = [
            {name: value for name, value in row.items() if name != "task"}
            for row in found["raters"]
            if row["task"] == task
        ]
        console.print(_table(f"raters: {task}", rows))
    if answers.problems:
        console.print(f"{len(answers.problems)} faults:", highlight=False)
        for problem in answers.problems[:SHOWN]:
            console.print(f"  {problem}", highlight=False, markup=False, soft_wrap=True)
        if len(answers.problems) > SHOWN:
            console.print(f"  ... and {len(answers.problems) - SHOWN} more, in the file of figures")


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    """Return a table with a figure's interval in its cell."""
    columns = [
        name for name in dict.fromkeys(name for row in rows for name in row) if not name.endswith(("_low", "_high"))
    ]
    table = Table(title=title)
    for name in columns:
        table.add_column(name.replace("_", " "), justify="left" if name in ("", "rater") else "right")
    for row in rows:
        table.add_row(*(_cell(row, name) for name in columns))
    return table


def _cell(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return "-"
    if isinstance(value, str | int):
        return str(value)
    if name == "p_value":
        return f"{value:.2g}"
    if f"{name}_low" in row:
        return f"{value:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) > 1 else f"{value:.2f}"
