"""Published figures beside ours: a small YAML of system, set, measure, value and source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from g2r_lightning.errors import DataError
from g2r_lightning.studies.report.making import Report

SECTIONS = ("published", "paper")
FIELDS = {"system", "set", "measure", "value", "source"}


@dataclass(frozen=True)
class Published:
    """A figure that somebody published.

    Args:
        system: whose.
        dataset: on which test set.
        measure: key of the measure.
        value: as figures are stored here (shares from 0 to 1).
        source: where it stands.
    """

    system: str
    dataset: str
    measure: str
    value: float
    source: str


def read_published(path: str | Path) -> list[Published]:
    """Return the figures of a file.

    Raises:
        DataError: it cannot be read, or an entry lacks something, its source above all.
    """
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(path, f"cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or not set(found) <= set(SECTIONS):
        raise DataError(path, f"expected lists under {' and '.join(SECTIONS)}")
    return [_entry(path, name, place, one) for name in SECTIONS for place, one in enumerate(found.get(name) or [])]


def _entry(path: str | Path, section: str, place: int, given: Any) -> Published:
    named = set(given) if isinstance(given, dict) else set()
    if named != FIELDS or not str(given["source"]).strip() or not isinstance(given["value"], int | float):
        raise DataError(path, f"{section}[{place}]: needs {', '.join(sorted(FIELDS))}, the value a number")
    return Published(
        str(given["system"]), str(given["set"]), str(given["measure"]), float(given["value"]), str(given["source"])
    )


def beside(report: Report, published: list[Published]) -> list[list[str]]:
    """Return rows ``set, measure, system, figure, source``: what was published, then ours on the same set and measure.

    Ours are the rows of the main table of the set, with the runs as their source; sets that no run was tested on are
    left out, and measures that nothing here has stand with the published figure alone.
    """
    rows = []
    for dataset in dict.fromkeys(one.dataset for one in published):
        table = report.tables.get(f"main-{dataset}")
        if table is None:
            continue
        known = {one.key: one for one in table.measures}
        for key in dict.fromkeys(one.measure for one in published if one.dataset == dataset):
            measure = known.get(key)
            heading = measure.heading if measure else f"{key} (%)"
            theirs = [one for one in published if (one.dataset, one.measure) == (dataset, key)]
            rows += [[dataset, heading, one.system, f"{100 * one.value:.1f}", one.source] for one in theirs]
            for row in table.rows if measure else ():
                if (cell := row.cells.get(key)) is not None and measure is not None:
                    runs = ", ".join(cell.runs)
                    rows.append([dataset, heading, row.labels["system"], measure.shown(cell.value), runs])
    return rows
