"""From folders of runs to tables: one report a setting, the largest first, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from g2r_lightning.errors import ConfigError
from g2r_lightning.studies.report.measures import OF_UNTRAINED
from g2r_lightning.studies.report.others import (
    answer_rows,
    file_rows,
    human_row,
    latency_table,
    metric_table,
    ranked_note,
    teacher_rows,
    unmatched,
)
from g2r_lightning.studies.report.settings import Setting, settings_of
from g2r_lightning.studies.report.stored_runs import TOGETHER, Skipped, StoredRun, find_runs
from g2r_lightning.studies.report.tables import (
    VARIED,
    Base,
    Filler,
    Table,
    ablation,
    answers_table,
    base_of,
    main_rows,
    main_table,
    untrained_rows,
    varied,
)


@dataclass
class Section:
    """The tables of one setting.

    Args:
        setting: the runs.
        base: where factors stand that a table does not vary.
        tables: main tables first.
        apart: lines about what claims a cell that it could not share.
    """

    setting: Setting
    base: Base
    tables: list[Table]
    apart: list[str] = field(default_factory=list)


@dataclass
class Report:
    """What the runs below some folders say.

    Args:
        roots: the folders.
        sections: one a setting.
        counts: finished runs by kind.
        skipped: what could not be used, and why.
        runs: all that were read, of every kind.
    """

    roots: list[str]
    sections: list[Section]
    counts: dict[str, int]
    skipped: list[Skipped]
    runs: list[StoredRun]

    @property
    def tables(self) -> dict[str, Table]:
        """Those of the largest setting, by key."""
        return {table.key: table for table in self.sections[0].tables}


def make_report(
    roots: Sequence[str | Path],
    sets: Sequence[str] | None = None,
    base: Mapping[str, Any] | None = None,
    replies: Mapping[str, str] | None = None,
) -> Report:
    """Return the tables of the runs below some folders.

    Args:
        roots: runs, or folders with runs at any depth.
        sets: test sets of the main tables, ``all`` for all of them together; every one by default. The other tables are
            about the first of them that is ``all``, else about the first.
        base: where factors stand that a table does not vary, see :class:`Base`; found by itself by default.
        replies: name -> file of contexts and replies of a system without a run.

    Raises:
        ConfigError: there is no run, no finished run of a student, or no such test set.
        G2RError: a file of replies cannot be read.
    """
    runs, skipped = find_runs(roots)
    settings, unknown = settings_of(runs)
    skipped = sorted([*skipped, *unknown], key=lambda one: one.name)
    if not settings:
        reasons = "".join(f"\n  {one.name}: {one.reason}" for one in skipped)
        raise ConfigError(f"--runs: no finished run of a student to report on{reasons}")
    counts = {kind: sum(run.kind == kind for run in runs) for kind in ("student", "teacher", "metric")}
    teachers = [run for run in runs if run.kind == "teacher"]
    sections = [_section(one, teachers, sets, base or {}, replies or {}) for one in settings]
    metrics = metric_table([run for run in runs if run.kind == "metric"])
    if metrics.rows:
        sections[0].tables.append(metrics)
    return Report([str(root) for root in roots], sections, counts, skipped, runs)


def _section(
    setting: Setting,
    teachers: Sequence[StoredRun],
    sets: Sequence[str] | None,
    asked: Mapping[str, Any],
    replies: Mapping[str, str],
) -> Section:
    """Return the tables of one setting."""
    base, filler = base_of(setting.runs, asked), Filler()
    known = list(dict.fromkeys(name for one in setting.runs for name in one.run.sets))
    names = _sets(known, sets)
    main = TOGETHER if TOGETHER in names else names[0]
    tables = [_main(filler, setting, base, teachers, replies, name) for name in names]
    for name in dict.fromkeys(name for one in setting.runs for name in one.run.answered):
        tables.append(answers_table(name))
        students = filler.figures(tables[-1].measures, main_rows(setting, base), name)
        filler.fill(tables[-1], [*answer_rows(filler, setting, teachers, name), *students])
    tables.append(ablation(filler, setting, base, main))
    tables += [varied(filler, key, setting, base, main) for key in VARIED]
    tables.append(latency_table(filler, setting, base))
    filler.apart += unmatched(setting, replies)
    return Section(setting, base, tables, list(dict.fromkeys(filler.apart)))


def _sets(known: Sequence[str], asked: Sequence[str] | None) -> list[str]:
    """Return the test sets to report on: all together first.

    Raises:
        ConfigError: a set does not exist.
    """
    for name in asked or ():
        if name not in known:
            raise ConfigError(f"--sets: no test set {name!r}; the runs have {', '.join(known)}")
    return list(asked) if asked else sorted(known, key=lambda name: name != TOGETHER)


def _main(
    filler: Filler,
    setting: Setting,
    base: Base,
    teachers: Sequence[StoredRun],
    replies: Mapping[str, str],
    dataset: str,
) -> Table:
    """Return the main table of one test set: people, teachers, students."""
    table = main_table(dataset)
    rows = teacher_rows(filler, setting, teachers, dataset)
    table.note += ranked_note(setting, teachers, dataset)
    for name, (labels, found) in file_rows(setting, replies, dataset).items():
        rows[name] = (rows[name][0], {**rows[name][1], **found}) if name in rows else (labels, found)
    people = human_row(setting, dataset)
    first = [*([people] if people else []), *rows.values()]
    untrained = filler.figures(OF_UNTRAINED, untrained_rows(setting, base), dataset)
    filler.fill(table, [*first, *untrained, *filler.figures(table.measures, main_rows(setting, base), dataset)])
    return table
