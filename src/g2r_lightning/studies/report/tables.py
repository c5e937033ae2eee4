"""The tables of the paper's structure (Kim et al. 2021): which rows and columns they have, and which runs fill them.

A table varies some factors; the others stand at their *base*: what the reference uses (alpha 0.1, T 1) where a run has
it, else what most runs have. Runs that are off the base fill the tables of the factor in which they differ, no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from g2r_lightning.studies.report.cells import Cell, Figure, cell_of, of_one_condition
from g2r_lightning.studies.report.measures import ALL, OF_ANSWERS, OF_REPLIES, Measure
from g2r_lightning.studies.report.settings import Setting, StudentRun
from g2r_lightning.studies.report.systems import ORIGINAL, System

REFERENCE = {"alpha": 0.1, "temperature": 1.0}
Groups = Sequence[tuple[dict[str, str], Sequence[StudentRun]]]
ANY = "any"  # temperature, where nothing is divided by it
METHODS = ("baseline", "D", "M-LL", "M-MI", "DM-LL", "DM-MI")


@dataclass
class Row:
    """A row.

    Args:
        labels: heading -> text.
        cells: a measure's key -> its cell; missing where there is no run.
    """

    labels: dict[str, str]
    cells: dict[str, Cell]


@dataclass
class Table:
    """A table.

    Args:
        key: leads the names of its files.
        title: what it compares.
        note: how it is to be read.
        measures: its columns.
        rows: its rows.
    """

    key: str
    title: str
    note: str
    measures: tuple[Measure, ...]
    rows: list[Row] = field(default_factory=list)

    @property
    def headings(self) -> list[str]:
        """Headings of the labels."""
        return list(dict.fromkeys(name for row in self.rows for name in row.labels))


@dataclass(frozen=True)
class Base:
    """Where the factors stand that a table does not vary; ``None`` where no run has the factor.

    Args:
        alpha: weight of the score transfer.
        temperature: of the teacher's scores.
        generated: m, replies of the teacher a context.
        response_set: of the systems with G2R-D.
        negatives: scheme.
    """

    alpha: float | None = None
    temperature: float | None = None
    generated: int | None = None
    response_set: str | None = None
    negatives: str | None = None

    def holds(self, system: System, varied: Iterable[str] = ()) -> bool:
        """Whether a system stands at the base in every factor that it has and that is not varied."""
        wanted = {
            "alpha": self.alpha if system.score else None,
            "temperature": self.temperature if system.score else None,
            "generated": self.generated if system.data_level or system.score else 0,
            "response_set": self.response_set if system.data_level else ORIGINAL,
            "negatives": self.negatives,
        }
        if system.response_set == "approved":  # one for all systems
            wanted.pop("response_set")
        return all(getattr(system, name) == value for name, value in wanted.items() if name not in set(varied))


def base_of(runs: Sequence[StudentRun], asked: Mapping[str, Any]) -> Base:
    """Return the base of some runs.

    Args:
        runs: of one setting.
        asked: factor -> value, in the place of what would be taken.
    """
    systems = [one.system for one in runs]
    taught = [one for one in systems if one.data_level or one.score]
    values = {
        "alpha": _base_value([one.alpha for one in systems if one.score], REFERENCE["alpha"]),
        "temperature": _base_value([one.temperature for one in systems if one.score], REFERENCE["temperature"]),
        "generated": _base_value([one.generated for one in taught if one.generated], None),
        "response_set": _base_value([one.response_set for one in systems if one.data_level], "both"),
        "negatives": _base_value([one.negatives for one in systems], None),
    }
    return Base(**{**values, **{key: value for key, value in asked.items() if value is not None}})


def _base_value(found: Sequence[Any], preferred: Any) -> Any:
    if preferred in found or not found:
        return preferred if found else None
    return Counter(found).most_common(1)[0][0]


class Filler:
    """Fills rows from runs, and keeps what could not stand beside the rest.

    Attributes:
        apart: lines about runs and figures that were left out of a cell, by name.
    """

    def __init__(self) -> None:
        self.apart: list[str] = []

    def rows(self, table: Table, groups: Groups, dataset: str) -> None:
        """Add a row a group of runs; figures of other conditions than most of a column are left out, and named.

        Args:
            table: gets the rows.
            groups: labels, and the runs of one system.
            dataset: test set, or ``all``.
        """
        self.fill(table, self.figures(table.measures, groups, dataset))

    def figures(
        self, measures: Sequence[Measure], groups: Groups, dataset: str
    ) -> list[tuple[dict[str, str], dict[str, list[Figure]]]]:
        """Return the labels of each row, and by measure what its runs say, one a seed."""
        found = []
        for labels, runs in self._split(groups):
            own = self._one_a_seed(runs)
            found.append(
                (labels, {m.key: [f for one in own if (f := m.of(one.run, dataset)) is not None] for m in measures})
            )
        return found

    def fill(self, table: Table, figures: Sequence[tuple[dict[str, str], Mapping[str, Sequence[Figure]]]]) -> None:
        """Add a row each, of figures by measure; those of other conditions are left out, and named."""
        for labels, _ in figures:
            table.rows.append(Row(labels, {}))
        added = table.rows[len(table.rows) - len(figures) :]
        for measure in table.measures:
            kept, others = of_one_condition([one for _, found in figures for one in found.get(measure.key, ())])
            for one in others:
                self._say(
                    f"{one.run}: its {measure.heading} is left out of '{table.title}': measured by or on "
                    f"[{one.condition}], the others by or on [{kept[0].condition}]"
                )
            for row, (_, found) in zip(added, figures, strict=True):
                cell = cell_of([one for one in found.get(measure.key, ()) if one in kept])
                if cell is not None:
                    row.cells[measure.key] = cell

    def _split(self, groups: Groups) -> list[tuple[dict[str, str], list[StudentRun]]]:
        """Split runs of one system whose teacher's scores are others: they claim one cell and do not share it."""
        found = []
        for labels, runs in groups:
            by_scores: dict[str, list[StudentRun]] = {}
            for one in runs:
                data = one.run.record.get("data") or {}
                by_scores.setdefault(str(data.get("scores_hash")) if one.system.score else "", []).append(one)
            for scores, own in by_scores.items():
                last = list(labels)[-1] if labels else ""
                marked = {**labels, last: f"{labels[last]} (scores {scores[:8]})"} if len(by_scores) > 1 else labels
                found.append((marked, own))
        return found

    def _one_a_seed(self, runs: Sequence[StudentRun]) -> list[StudentRun]:
        """Return the first run of every seed; say which were left out."""
        by_seed: dict[Any, StudentRun] = {}
        for one in runs:
            first = by_seed.setdefault(one.run.seed, one)
            if first is not one:
                self._say(
                    f"{one.run.name}: the same system, setting and seed ({one.run.seed}) as {first.run.name}, which "
                    "stands in the tables; a run counts once"
                )
        return list(by_seed.values())

    def _say(self, line: str) -> None:
        if line not in self.apart:
            self.apart.append(line)


def order(system: System) -> tuple[Any, ...]:
    """Return the place of a system among rows: encoder, method, then the factors."""
    method = system.method
    place = METHODS.index(method) if method in METHODS else len(METHODS)
    factors = (system.alpha, system.temperature, system.generated, system.response_set, system.negatives)
    return (system.encoder, place, method, *((value is not None, value) for value in factors))


def grouped(runs: Iterable[StudentRun]) -> list[tuple[System, list[StudentRun]]]:
    """Return the runs of each system, in the order of the rows."""
    by_system: dict[System, list[StudentRun]] = {}
    for one in runs:
        by_system.setdefault(one.system, []).append(one)
    return [(system, by_system[system]) for system in sorted(by_system, key=order)]


def main_rows(setting: Setting, base: Base) -> list[tuple[dict[str, str], list[StudentRun]]]:
    """Return the rows of the main table: each encoder, + D, + DM-LL, + DM-MI, at the base."""
    kept = [one for one in setting.runs if base.holds(one.system) and (one.system.data_level or not one.system.score)]
    return [
        ({"system": system.encoder + ("" if system.method == "baseline" else f" + {system.method}")}, runs)
        for system, runs in grouped(kept)
    ]


def untrained_rows(setting: Setting, base: Base) -> list[tuple[dict[str, str], list[StudentRun]]]:
    """Return the rows of the students before training: of each encoder the baselines that were tested so, too."""
    tested = [
        one
        for one in setting.runs
        if one.system.method == "baseline" and base.holds(one.system) and "untrained" in one.run.results
    ]
    return [({"system": f"{system.encoder}, untrained"}, runs) for system, runs in grouped(tested)]


def ablation(filler: Filler, setting: Setting, base: Base, dataset: str) -> Table:
    """Return the table of D and M, LL and MI."""
    note = (
        "D: the teacher's replies are positives, negatives and answers. M: its scores are transferred, with D or "
        "without, by log-likelihood (LL) or mutual information (MI)."
    )
    table = Table("ablation", "Ablation: D and M, LL and MI", note, OF_REPLIES)
    rows = [
        ({"encoder": system.encoder, "D": "yes" if system.data_level else "no", "M": system.score or "no"}, runs)
        for system, runs in grouped(one for one in setting.runs if base.holds(one.system))
    ]
    filler.rows(table, rows, dataset)
    return table


VARIED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "generated": ("Number of generated replies m", ("generated",), "m: most replies of the teacher a context."),
    "alpha_temperature": (
        "Weight of the score transfer alpha, temperature T", ("alpha", "temperature"),
        "alpha: weight of the score transfer, 0 without one; T: divides the teacher's scores.",
    ),
    "response_set": ("Response set", ("response_set",), "Who wrote what is answered with."),
    "negatives": ("Negatives", ("negatives",), "Where the cross-entropy's negatives come from."),
}  # fmt: skip
HEADINGS = {
    "generated": "m",
    "alpha": "alpha",
    "temperature": "T",
    "response_set": "response set",
    "negatives": "negatives",
}


def varied(filler: Filler, key: str, setting: Setting, base: Base, dataset: str) -> Table:
    """Return a table that varies one factor, or alpha and T together, the others at the base.

    Args:
        filler: fills it.
        key: of :data:`VARIED`.
        setting: whose runs.
        base: of the other factors.
        dataset: test set, or ``all``.
    """
    title, factors, note = VARIED[key]
    table = Table(key, title, note, OF_REPLIES)
    held = [one for one in setting.runs if base.holds(one.system, factors)]
    transferred = {(one.system.encoder, one.system.data_level) for one in held if one.system.score}
    kept = [one for one in held if _has(one.system, key, transferred)]
    rows = [
        (
            {
                "encoder": system.encoder,
                "method": system.method,
                **{HEADINGS[name]: _factor(system, name) for name in factors},
            },
            runs,
        )
        for system, runs in grouped(kept)
    ]
    filler.rows(table, rows, dataset)
    return table


def _has(system: System, key: str, transferred: set[tuple[str, bool]]) -> bool:
    """Whether a system has the factor at all; without a transfer, whether it is where others of the table begin."""
    if key == "alpha_temperature":
        return bool(system.score) or (system.encoder, system.data_level) in transferred
    return system.data_level if key == "response_set" else True


def _factor(system: System, name: str) -> str:
    """Return a factor's value as a label; ``?`` where nobody knows it."""
    value = getattr(system, name)
    if value is None:
        return {"alpha": "0", "temperature": ANY}.get(name, "?")
    return f"{value:g}" if isinstance(value, float) else str(value)


def main_table(dataset: str) -> Table:
    """Return the main table of a test set, without rows."""
    where = "all test sets together" if dataset == "all" else dataset
    note = (
        "The human response among 20 (hits@1/20, MRR) and among the response set and the set's own responses "
        "(recall@10); the best reply of the response set, of a teacher what it wrote itself (Dist-n, length, learned "
        "quality); mean wall-clock time a reply at batch size 1."
    )
    return Table(f"main-{dataset}", f"Main results: {where}", note, ALL)


def answers_table(name: str) -> Table:
    """Return the table of the replies to a file of contexts without a human response, without rows."""
    note = "The best reply of the response set to each context of the file, of a teacher what it wrote; none is ranked."
    return Table(f"answers-{name}", f"Replies to the contexts of {name}", note, OF_ANSWERS)
