"""``report``: the tables of a paper from the records of runs; needs no experiment, its settings are flags."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable

from g2r_lightning.config_errors import innermost
from g2r_lightning.errors import ConfigError
from g2r_lightning.studies.report.making import Report, make_report
from g2r_lightning.studies.report.measures import Measure
from g2r_lightning.studies.report.records import keep_records
from g2r_lightning.studies.report.tables import Base, Table
from g2r_lightning.studies.report.writing import shown, write_report

log = logging.getLogger(__name__)
SHOWN = 10


@dataclass(frozen=True)
class ReportSettings:
    """What is reported on.

    Args:
        runs: folders of runs, or folders with runs at any depth.
        output: folder for the tables: Markdown, CSV, LaTeX, JSON.
        sets: test sets of the main tables, ``all`` for all of them together; every one by default.
        base: where factors stand in tables that do not vary them: ``alpha``, ``temperature``, ``generated``,
            ``response_set``, ``negatives``; the reference's, else what most runs have, by default.
        replies: name -> JSONL of contexts and replies of a system without a run, a teacher on a test set for example,
            as ``quality --quality.input`` writes it with scores.
        records: keep configuration, record and figures of every run in ``<output>/records``, from which the same tables
            can be made again.
    """

    runs: list[str] = field(default_factory=lambda: ["runs"])
    output: str = "report"
    sets: list[str] | None = None
    base: Base = field(default_factory=Base)
    replies: dict[str, str] = field(default_factory=dict)
    records: bool = False


def report(arguments: Sequence[str]) -> None:
    """Write the tables, and print the first.

    Raises:
        G2RError: a setting cannot be used, or there is nothing to report on.
    """
    settings = _parsed(arguments)
    made = make_report(settings.runs, settings.sets, dataclasses.asdict(settings.base), settings.replies)
    output = Path(settings.output).expanduser()
    paths = write_report(made, output)
    if settings.records:
        paths += keep_records(made.runs, output / "records")
    _print(made)
    log.info("wrote %d files into %s; begin with %s", len(paths), settings.output, paths[0])


def _parsed(arguments: Sequence[str]) -> ReportSettings:
    """Return the settings that flags and files give."""
    parser = ArgumentParser(
        prog="python -m g2r_lightning report", exit_on_error=False, description=ReportSettings.__doc__,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("-c", "--config", action="config")
    parser.add_class_arguments(ReportSettings)
    try:
        found: Any = parser.parse_args(list(arguments))
    except (argparse.ArgumentError, TypeError, ValueError, OSError) as error:
        raise ConfigError(f"report: {innermost(str(error).strip())}") from error
    values = {one.name: found[one.name] for one in dataclasses.fields(ReportSettings)}
    base = values["base"]
    return ReportSettings(**{**values, "base": base if isinstance(base, Base) else Base(**vars(base))})


def _print(made: Report) -> None:
    """Print the first table of every setting, and what was left out."""
    console = Console()
    for section in made.sections:
        console.print(_fitting(console, section.tables[0], section.setting.number if len(made.sections) > 1 else None))
        for line in section.apart[:SHOWN]:
            console.print(f"left out: {line}", highlight=False, markup=False, soft_wrap=True)
    for one in made.skipped[:SHOWN]:
        console.print(f"skipped {one.name}: {one.reason}", highlight=False, markup=False, soft_wrap=True)
    if len(made.skipped) > SHOWN:
        console.print(f"... and {len(made.skipped) - SHOWN} more, in report.md", highlight=False)


def _fitting(console: Console, table: Table, setting: int | None) -> RichTable:
    """Return as much of a table as the terminal is wide enough for, at least one measure, and say what is not shown."""
    filled = [one for one in table.measures if any(one.key in row.cells for row in table.rows)]
    fitting = len(filled)
    while fitting > 1 and _width(console, _table(table, setting, filled[:fitting])) > console.width:
        fitting -= 1
    made = _table(table, setting, filled[:fitting])
    if left := [one.heading for one in filled[fitting:]]:
        made.caption = f"in report.md too: {', '.join(left)}"
    return made


def _width(console: Console, table: RichTable) -> int:
    """Return how wide a table is where nothing is cut."""
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum


def _table(table: Table, setting: int | None, filled: Sequence[Measure]) -> RichTable:
    """Return a table for the terminal with some of its measures."""
    title = table.title if setting is None else f"{table.title} (setting {setting})"
    made = RichTable(title=title)
    for name in table.headings:
        made.add_column(name, no_wrap=True)
    for one in filled:
        made.add_column(one.heading, justify="right")
    for row in table.rows:
        labels = [row.labels.get(name, "") for name in table.headings]
        made.add_row(*labels, *(shown(row.cells.get(one.key), one) for one in filled))
    return made
