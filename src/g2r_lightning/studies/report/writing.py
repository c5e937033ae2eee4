"""A report on disk: one page of Markdown, and every table as CSV and LaTeX, everything as JSON.

In Markdown a row bears a letter, or each cell where they come from different runs, and the lines under the table say
which runs it stands for; CSV has the runs of each cell in a column of its own. Intervals: ``± x`` is over seeds,
``[low, high]`` over dialogues.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from g2r_lightning.inference.model_card import table as markdown
from g2r_lightning.paths import atomic_path
from g2r_lightning.studies.report.cells import Cell
from g2r_lightning.studies.report.making import Report, Section
from g2r_lightning.studies.report.measures import Measure
from g2r_lightning.studies.report.settings import as_dict
from g2r_lightning.studies.report.tables import Row, Table

LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\^{}"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write ``report.md``, ``report.json``, and ``<setting>/<table>.csv`` and ``.tex``; return the paths.

    Raises:
        G2RError: a file cannot be written.
    """
    texts = {folder / "report.md": as_markdown(report), folder / "report.json": as_json(report)}
    for section in report.sections:
        own = folder / f"setting-{section.setting.number}"
        for table in section.tables:
            texts[own / f"{table.key}.csv"] = as_csv(table)
            texts[own / f"{table.key}.tex"] = as_latex(table)
    for path, text in texts.items():
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(texts)


def shown(cell: Cell | None, measure: Measure) -> str:
    """Return a cell's figure with its interval; nothing for nothing."""
    if cell is None:
        return ""
    value = measure.shown(cell.value)
    if cell.spread == "seeds" and cell.high is not None:
        return f"{value} ± {measure.shown(cell.high - cell.value)}"
    if cell.spread == "dialogues" and cell.low is not None and cell.high is not None:
        return f"{value} [{measure.shown(cell.low)}, {measure.shown(cell.high)}]"
    return value


def as_markdown(report: Report) -> str:
    """Return the page."""
    counted = ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in report.counts.items())
    parts = [
        "# Report",
        (
            f"Made by `python -m g2r_lightning report` of {counted} in {', '.join(report.roots)}. Every figure is from "
            "runs that the letter of its row, or its own, names; a cell without a run is empty. `± x`: 95% interval of "
            "the mean over seeds (Student's t); `[low, high]`: one seed, 95% interval over dialogues (bootstrap)."
        ),
    ]
    for section in report.sections:
        parts += _section(section, several=len(report.sections) > 1)
    if report.skipped:
        listed = "\n".join(f"- {one.name}: {one.reason}" for one in report.skipped)
        parts += [f"## Left out: {len(report.skipped)}", listed]
    return "\n\n".join(parts) + "\n"


def _section(section: Section, several: bool) -> list[str]:
    setting, base = section.setting, dataclasses.asdict(section.base)
    parts = [f"## Setting {setting.number}: {len(setting.runs)} runs"] if several else []
    if setting.differences:
        runs = ", ".join(one.run.name for one in setting.runs)
        listed = "\n".join(f"- {line}" for line in setting.differences)
        parts.append(f"These runs ({runs}) are no rivals of setting 1's, from which they differ in:\n\n{listed}")
    fixed = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in base.items() if value is not None)
    parts.append(f"Where a table does not vary them: {fixed}.")
    for table in section.tables:
        parts += [f"### {table.title}", table.note, table_markdown(table)]
    if section.apart:
        parts += ["### Left out of cells", "\n".join(f"- {line}" for line in section.apart)]
    return parts


def table_markdown(table: Table) -> str:
    """Return the Markdown of a table, and the runs that its letters name."""
    if not table.rows:
        return "No run fills a row of this table."
    letters: dict[tuple[str, ...], str] = {}
    rows = []
    for row in table.rows:
        labels = [row.labels.get(name, "") for name in table.headings]
        of_row = {cell.runs for cell in row.cells.values()}
        if len(of_row) == 1:
            (runs,) = of_row
            labels[-1] += f" ({letters.setdefault(runs, _letter(len(letters)))})"
            rows.append([*labels, *(shown(row.cells.get(measure.key), measure) for measure in table.measures)])
            continue
        rows.append([*labels, *(_lettered(row.cells.get(one.key), one, letters) for one in table.measures)])
    named = "\n".join(f"- ({letter}): {', '.join(runs)}" for runs, letter in letters.items())
    return f"{markdown([*table.headings, *(one.heading for one in table.measures)], rows, rule='--:')}\n\n{named}"


def _lettered(cell: Cell | None, measure: Measure, letters: dict[tuple[str, ...], str]) -> str:
    if cell is None:
        return ""
    return f"{shown(cell, measure)} ({letters.setdefault(cell.runs, _letter(len(letters)))})"


def _letter(number: int) -> str:
    """Return a, b, ... z, aa, ab, ... for 0, 1, ...

    >>> _letter(0), _letter(25), _letter(26)
    ('a', 'z', 'aa')
    """
    before, last = divmod(number, 26)
    return (_letter(before - 1) if before else "") + chr(ord("a") + last)


def as_csv(table: Table) -> str:
    """Return a table with unrounded figures as they are stored: value, interval, its kind and the runs of each cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("", "_low", "_high", "_interval_over", "_runs")
    writer.writerow([*table.headings, *(f"{one.key}{part}" for one in table.measures for part in parts)])
    for row in table.rows:
        values: list[Any] = [row.labels.get(name, "") for name in table.headings]
        for measure in table.measures:
            cell = row.cells.get(measure.key)
            values += ["", "", "", "", ""] if cell is None else _values(cell)
        writer.writerow(values)
    return text.getvalue()


def _values(cell: Cell) -> list[Any]:
    ends = ["" if end is None else repr(end) for end in (cell.low, cell.high)]
    return [repr(cell.value), *ends, cell.spread, " ".join(cell.runs)]


def as_latex(table: Table) -> str:
    """Return a table for LaTeX (package booktabs); which runs a cell stands for is a comment after its row."""
    columns = "l" * len(table.headings) + "r" * len(table.measures)
    heads = [*table.headings, *(one.heading for one in table.measures)]
    lines = [f"% {table.title}", f"\\begin{{tabular}}{{{columns}}}", "\\toprule", _latex_row(heads), "\\midrule"]
    for row in table.rows:
        cells = [shown(row.cells.get(measure.key), measure) for measure in table.measures]
        named = "; ".join(dict.fromkeys(" ".join(cell.runs) for cell in row.cells.values()))
        lines.append(f"{_latex_row([*(row.labels.get(name, '') for name in table.headings), *cells])} % {named}")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    escaped = ("".join(LATEX.get(sign, sign) for sign in cell) for cell in cells)
    return " & ".join(escaped) + r" \\"


def as_json(report: Report) -> str:
    """Return everything, unrounded."""
    told = {
        "roots": report.roots,
        "counts": report.counts,
        "skipped": [dataclasses.asdict(one) for one in report.skipped],
        "settings": [
            {
                "number": section.setting.number,
                "runs": {one.run.name: {"seed": one.run.seed, **as_dict(one.system)} for one in section.setting.runs},
                "facts": section.setting.facts,
                "differences": section.setting.differences,
                "base": dataclasses.asdict(section.base),
                "apart": section.apart,
                "tables": {table.key: _json_table(table) for table in section.tables},
            }
            for section in report.sections
        ],
    }
    return json.dumps(told, indent=2, ensure_ascii=False, default=str) + "\n"


def _json_table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "measures": {one.key: one.heading for one in table.measures},
        "rows": [_json_row(row) for row in table.rows],
    }


def _json_row(row: Row) -> dict[str, Any]:
    return {"labels": row.labels, "cells": {key: dataclasses.asdict(cell) for key, cell in row.cells.items()}}
