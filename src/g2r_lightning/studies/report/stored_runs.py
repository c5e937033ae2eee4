"""Run folders as a report sees them: what each says of itself, and why one cannot be used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from g2r_lightning.errors import ConfigError
from g2r_lightning.paths import resolve_path
from g2r_lightning.runs import CONFIG, RECORD, RunFolder
from g2r_lightning.studies.replies import read_answers

KINDS = {"RetrievalStudent": "student", "TeacherModule": "teacher", "UnreferencedModule": "metric"}
SAME = ["example_id", "reply"]
TOGETHER = "all"
INSIDE = ("checkpoints", "index", "results", "examples", "teacher", "predictions")
"""Folders of a run, in which no other run lies."""
JUDGES = {
    "quality": "judge it again by `quality -c <metric>/config.yaml --quality.run=<run>`",
    "likelihood": "judge it again by `score -c <teacher's experiment> --replies_of=<run>`",
}
"""Results that are told of a run's replies after its test, and what tells them."""


@dataclass(frozen=True)
class StoredRun:
    """A finished run.

    Args:
        name: its path below the folder that was searched, which tells it apart from all others.
        folder: where it is.
        kind: ``student``, ``teacher`` or ``metric``.
        config: the composed configuration.
        record: ``record.json``.
        results: file name without its end -> flat figures, of ``results/*.json``.
        outdated: of :data:`JUDGES`, the sets whose replies are others than those that were judged; their figures are
            not in ``results``.
    """

    name: str
    folder: Path
    kind: str
    config: dict[str, Any]
    record: dict[str, Any]
    results: dict[str, dict[str, Any]]
    outdated: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def test(self) -> dict[str, Any]:
        """Figures of the best checkpoint on the test sets."""
        return self.results.get("test", {})

    @property
    def seed(self) -> Any:
        """Of the training."""
        return self.record.get("seed", self.config.get("seed_everything"))

    @property
    def sets(self) -> list[str]:
        """Names of the test sets, ``all`` for all of them last."""
        found = dict.fromkeys(key.split("/", 1)[0] for key in self.test if "/" in key)
        return sorted(found, key=lambda name: name == TOGETHER)

    @property
    def answered(self) -> list[str]:
        """Names of the contexts without a human response whose replies were judged."""
        keys = (key.rpartition("/") for key in self.results.get("quality", {}))
        return [name for name, _, figure in keys if figure == "distinct_2" and name not in self.sets]


@dataclass(frozen=True)
class Skipped:
    """A folder that looks like a run and cannot be used.

    Args:
        name: as of :class:`StoredRun`.
        reason: why.
    """

    name: str
    reason: str


def class_name(section: Any) -> str:
    """Return the name of the class that a section of a configuration names, by whichever path it was imported.

    >>> class_name({"class_path": "g2r_lightning.student.BiEncoder"})
    'BiEncoder'
    """
    path = section.get("class_path") if isinstance(section, dict) else None
    return str(path or "").rpartition(".")[2]


def find_runs(roots: Sequence[str | Path]) -> tuple[list[StoredRun], list[Skipped]]:
    """Return the finished runs below some folders, in the order of their names, and what was passed over.

    Args:
        roots: each a run, or a folder with runs at any depth.

    Raises:
        ConfigError: a folder does not exist, or none holds a run.
    """
    found: dict[Path, StoredRun | Skipped] = {}
    for root in roots:
        place = resolve_path(root)
        if not place.is_dir():
            raise ConfigError(f"--runs: {place} is no folder; name folders of runs, --runs='[runs]'")
        several = len(roots) > 1
        for folder in _run_folders(place):
            below = folder.relative_to(place).as_posix()
            name = place.name if below == "." else f"{place.name}/{below}" if several else below
            found.setdefault(folder.resolve(), _read(folder, name))
    if not found:
        listed = ", ".join(str(root) for root in roots)
        raise ConfigError(
            f"--runs: no run in {listed}: a run is a folder with {CONFIG} and {RECORD}, as `fit` leaves it"
        )
    runs = [one for one in found.values() if isinstance(one, StoredRun)]
    skipped = [one for one in found.values() if isinstance(one, Skipped)]
    for run in runs:
        for label, sets in run.outdated.items():
            told = f"results/{label}.json is of other replies than there are now to {', '.join(sets)}; {JUDGES[label]}"
            skipped.append(Skipped(run.name, f"{told}. Till then these figures are left out"))
    return sorted(runs, key=lambda one: one.name), sorted(skipped, key=lambda one: one.name)


def _run_folders(place: Path) -> list[Path]:
    """Return the folders that hold a run's configuration or record, but those inside a run."""
    folders = {path.parent for name in (CONFIG, RECORD) for path in place.rglob(name)}

    def inside(folder: Path) -> bool:
        """Whether a run further up has this as its index, its teacher or the like."""
        above = [one for one in folder.parents if one in folders]
        return any(folder.relative_to(run).parts[0] in INSIDE for run in above)

    return sorted(folder for folder in folders if not inside(folder))


def _read(folder: Path, name: str) -> StoredRun | Skipped:
    """Return a run, or why there is none."""
    try:
        config = _config(folder / CONFIG)
        record = _object(folder / RECORD)
        results = {path.stem: _object(path) for path in sorted((folder / "results").glob("*.json"))}
    except (ValueError, OSError) as error:
        return Skipped(name, str(error))
    status = record.get("status")
    if status != "finished":
        return Skipped(name, f"not finished: its record says {status!r}")
    model = class_name(config.get("model"))
    if model not in KINDS:
        return Skipped(name, f"its model {model} is none that a table is about")
    outdated = {label: sets for label in JUDGES if label in results and (sets := _outdated(folder, label))}
    for label, sets in outdated.items():
        results[label] = {k: value for k, value in results[label].items() if k.partition("/")[0] not in sets}
    run = StoredRun(name, folder, KINDS[model], config, record, results, outdated)
    if run.kind != "metric" and not run.test:
        return Skipped(name, "was not tested: no results/test.json; run `test -c <run>/config.yaml`")
    return run


def _outdated(folder: Path, label: str) -> tuple[str, ...]:
    """Return the sets that were judged before they were tested or answered again, as far as single replies were kept.

    Where one of the test sets is, so are all of them together. What is damaged tells nothing, as what is not there.
    """
    run = RunFolder(folder)
    tested, judged = run.example_files(), run.example_files(label)
    answers = read_answers(folder, [TOGETHER, *tested]) if judged.keys() - tested.keys() else {}
    try:
        replies = {name: pq.read_table(path, columns=SAME).sort_by("example_id") for name, path in judged.items()}
        sets = [
            name
            for name, path in tested.items()
            if name in replies and replies[name] != pq.read_table(path, columns=SAME).sort_by("example_id")
        ]
    except (pa.ArrowException, OSError, KeyError):
        return ()
    others = [
        name
        for name, answered in answers.items()
        if name in replies and replies[name]["reply"].to_pylist() != [one.replies[0] for one in answered]
    ]
    return (*sets, *([TOGETHER] if sets else []), *others)


def _config(path: Path) -> dict[str, Any]:
    """Return a saved configuration.

    Raises:
        ValueError: it is missing or damaged.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is missing")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is damaged: no mapping")  # noqa: TRY004 - of the file, not of an argument
    return found


def _object(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file.

    Raises:
        ValueError: it is missing or damaged.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is missing: the run did not begin to train")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is damaged: no object")  # noqa: TRY004 - of the file, not of an argument
    return found
