"""Which runs are seeds of one system, and whether systems may be compared at all.

A system is a setting; its runs differ in their seed alone. Runs may be compared that were tested on the same examples,
each with the same candidates to choose from: everything else is what the comparison is about.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from g2r_lightning.paths import resolve_path
from g2r_lightning.runs import differing
from g2r_lightning.studies.comparison.inputs import LIST_HASH, ComparisonError, TestedRun, read_tested

NAME_MARK, SEED_MARK = "=", ","
# Where a run lives and what is done with it later; the limits of training are part of a system.
NOT_THE_SYSTEM = (
    "run", "machine", "alias", "predict", "rules", "encode", "index", "chat", "latency", "serve", "rerank", "quality",
    "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.log_every_n_steps",
)  # fmt: skip
SEEDS = ("seed_everything", "data.init_args.seed")
CANDIDATE_SETTINGS = ("evaluation_seed", "choices")
SEED_NUMBER = re.compile(r"(?:[-_./](?:seed|s)?[-_.=]?|)\d+$")
ASKED = ["dialogue_id", "context"]
ANSWER_AGAIN = "`predict -c FOLDER/config.yaml` answers anew"
SHOWN = 3


@dataclass(frozen=True, eq=False)
class System:
    """One setting, trained once or several times.

    Args:
        name: in tables.
        runs: one a seed.
    """

    name: str
    runs: tuple[TestedRun, ...]


def read_systems(given: Sequence[str], stage: str = "test", join_seeds: bool = True) -> list[System]:
    """Return the systems that a command line names.

    Args:
        given: ``FOLDER``, ``NAME=FOLDER``, or ``NAME=FOLDER,FOLDER,...`` for the seeds of one system; a folder may hold
            ``*``, and end in ``@untrained`` (or another stage).
        stage: of folders that name none.
        join_seeds: take single folders whose configurations differ in the seed alone for one system.

    Raises:
        ComparisonError: a run cannot be read or is named twice, or fewer than two systems are left.
    """
    named: list[tuple[str | None, list[TestedRun]]] = []
    for one in given:
        name, folders = parsed(one)
        named.append((name, [read_tested(folder, stage) for folder in folders]))
    systems = _joined(named) if join_seeds else [System(name or runs[0].name, tuple(runs)) for name, runs in named]
    return checked(with_short_names(systems))


def checked(systems: Sequence[System]) -> list[System]:
    """Return the systems, if they are two at least and no run or name stands there twice.

    Raises:
        ComparisonError: otherwise.
    """
    folders: dict[tuple[Path, str], str] = {}
    for system in systems:
        for run in system.runs:
            key = (run.folder.resolve(), run.stage)
            if key in folders:
                raise ComparisonError(f"{run.name}: named twice, in '{folders[key]}' and '{system.name}'; name it once")
            folders[key] = system.name
    names = [system.name for system in systems]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ComparisonError(f"two systems are called '{twice}'; give them names: NAME=FOLDER")
    if len(systems) == 1 and len(systems[0].runs) > 1:
        raise ComparisonError(
            f"{', '.join(run.name for run in systems[0].runs)} differ in their seed alone, so they are one system; "
            "name runs of another one too, or compare the seeds with each other: --seeds=apart"
        )
    if len(systems) < 2:
        raise ComparisonError("name two runs at least: `compare runs/a runs/b`, or NAME=FOLDER,FOLDER for seeds of one")
    return list(systems)


def parsed(given: str) -> tuple[str | None, list[str]]:
    """Return the name, if there is one, and the folders of one word of the command line.

    >>> parsed("base=runs/base-1,runs/base-2")
    ('base', ['runs/base-1', 'runs/base-2'])
    """
    if resolve_path(given).is_dir():
        return None, [given]
    name, mark, rest = given.partition(NAME_MARK)
    if not mark or "/" in name:
        name, rest = "", given
    folders = [found for one in _separate(rest) for found in _expanded(one)]
    if not folders:
        raise ComparisonError(f"'{given}': names no folder; say NAME=FOLDER,FOLDER")
    if len(folders) > 1 and not name:
        raise ComparisonError(
            f"'{given}': several folders are the seeds of one system, which needs a name: NAME={rest}"
        )
    return name or None, folders


def system_settings(system: System, other: System) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two systems differ, with both values, seeds apart."""
    return differing(system.runs[0].config, other.runs[0].config, (*NOT_THE_SYSTEM, *SEEDS))


def check_comparable(systems: Sequence[System], sets: Sequence[str] | None) -> list[str]:
    """Return the names of the sets that all runs were tested on.

    Args:
        systems: all of them.
        sets: names of those that are wanted; all by default.

    Raises:
        ComparisonError: the runs were tested on other sets, other examples or other candidates; names two of them, what
            differs, and the remedy.
    """
    runs = [run for system in systems for run in system.runs]
    first = runs[0]
    wanted = list(first.sets) if sets is None else list(dict.fromkeys(sets))
    for run in runs:
        lacking = [name for name in wanted if name not in run.sets]
        more = [name for name in run.sets if name not in wanted] if sets is None else []
        if lacking or more:
            common = [name for name in first.sets if all(name in other.sets for other in runs)]
            remedy = (
                f"compare the common ones: --sets='[{', '.join(common)}]'" if common else "they have none in common"
            )
            raise ComparisonError(
                f"{run.name} was tested on {', '.join(run.sets)}, and "
                f"{'wanted are' if sets is not None else first.name + ' on'} {', '.join(wanted)}; {remedy}"
            )
    for run in runs[1:]:
        for name in wanted:
            _same_examples(first, run, name)
            _same_candidates(first, run, name)
    return wanted


def answered_alike(systems: Sequence[System], wanted: Sequence[str] = ()) -> list[str]:
    """Return the names of the contexts without a human response that all runs answered, the same in each.

    Args:
        systems: all of them.
        wanted: names that are asked for.

    Raises:
        ComparisonError: one of these is of contexts that some run has not answered, or others.
    """
    runs = [run for system in systems for run in system.runs]
    first = runs[0]
    alike = [
        name
        for name, table in first.answers.items()
        if all(name in run.answers and run.answers[name].select(ASKED).equals(table.select(ASKED)) for run in runs)
    ]
    for name in wanted:
        if name not in alike and any(name in run.answers for run in runs):
            raise ComparisonError(f"--sets: not all runs answered the same contexts of '{name}' ({ANSWER_AGAIN})")
    return alike


def with_short_names(systems: Sequence[System]) -> list[System]:
    """Name systems that are called by their folders by the last part of it, where that tells them apart."""
    short = [_last_part(system.name) for system in systems]
    return [
        System(brief if short.count(brief) == 1 else system.name, system.runs)
        for system, brief in zip(systems, short, strict=True)
    ]


def _last_part(name: str) -> str:
    return Path(name).name or name


def _separate(rest: str) -> list[str]:
    """Return the folders of a list; a comma within a name, as ``sweep`` gives them to its runs, separates nothing."""
    pieces, found = rest.split(SEED_MARK), list[str]()
    while pieces:
        for count in range(len(pieces), 0, -1):  # the longest that is there
            one = SEED_MARK.join(pieces[:count])
            if count == 1 or resolve_path(one).is_dir() or ("*" in one and _matching(one)):
                break
        found += [one] if one else []
        pieces = pieces[count:]
    return found


def _expanded(folder: str) -> list[str]:
    """Return the folders that a pattern names, in order; a folder without ``*`` itself, there or not."""
    if "*" not in folder:
        return [folder]
    found = _matching(folder)
    if not found:
        raise ComparisonError(f"{folder}: no folder is called so")
    return found


def _matching(pattern: str) -> list[str]:
    return [path for path in sorted(glob.glob(str(resolve_path(pattern)))) if Path(path).is_dir()]  # noqa: PTH207


def _joined(named: Sequence[tuple[str | None, list[TestedRun]]]) -> list[System]:
    """Return the systems, runs without a name that are seeds of one setting together."""
    systems: list[System] = []
    loose: list[int] = []
    for name, runs in named:
        if name is not None:
            systems.append(System(name, tuple(runs)))
            continue
        like = next((place for place in loose if _seeds_of_one(systems[place].runs[0], runs[0])), None)
        if like is None:
            loose.append(len(systems))
            systems.append(System(runs[0].name, tuple(runs)))
        else:
            systems[like] = System(_common_name([*systems[like].runs, *runs]), (*systems[like].runs, *runs))
    return systems


def _seeds_of_one(run: TestedRun, other: TestedRun) -> bool:
    """Whether two runs have one configuration but for another seed."""
    if not run.config or run.stage != other.stage:
        return False
    return set(differing(run.config, other.config, NOT_THE_SYSTEM)) in ({SEEDS[0]}, set(SEEDS))


def _common_name(runs: Sequence[TestedRun]) -> str:
    """Return what the runs are called without the numbers of their seeds; the first's name where that differs."""
    stems = {SEED_NUMBER.sub("", run.name) for run in runs}
    return stems.pop() or runs[0].name if len(stems) == 1 else runs[0].name


def _same_examples(first: TestedRun, run: TestedRun, name: str) -> None:
    ours, theirs = first.sets[name], run.sets[name]
    if not ours["example_id"].equals(theirs["example_id"]):
        left, right = set(ours["example_id"].to_pylist()), set(theirs["example_id"].to_pylist())
        told = "; ".join(
            f"{len(only)} in {whose} alone ({', '.join(sorted(only)[:SHOWN])})"
            for only, whose in ((left - right, first.name), (right - left, run.name))
            if only
        )
        raise ComparisonError(
            f"{first.name} and {run.name} were tested on other examples of '{name}': {told}; test both on the same "
            f"data; {_test_again(run)}"
        )
    for column in ("dialogue_id", "context", "response"):
        if not ours[column].equals(theirs[column]):
            place = _first_other(ours[column], theirs[column])
            raise ComparisonError(
                f"{first.name} and {run.name} have another {column.replace('_id', '')} in '{name}' for the example "
                f"{ours['example_id'][place].as_py()}: the data changed between them; {_test_again(run)}"
            )


def _same_candidates(first: TestedRun, run: TestedRun, name: str) -> None:
    """Refuse where the human responses were ranked among others."""
    ours, theirs = first.sets[name], run.sets[name]
    hashed = LIST_HASH in ours.column_names and LIST_HASH in theirs.column_names
    for column in ("list_size", *([LIST_HASH] if hashed else [])):
        if not ours[column].equals(theirs[column]):
            place = _first_other(ours[column], theirs[column])
            raise ComparisonError(
                f"{first.name} and {run.name} chose among other candidates in '{name}', first at the example "
                f"{ours['example_id'][place].as_py()}{_candidate_settings(first, run)}; {_test_again(run)}"
            )
    told = _candidate_settings(first, run)
    if not hashed and told:
        raise ComparisonError(f"{first.name} and {run.name} drew other candidates{told}; {_test_again(run)}")


def _candidate_settings(first: TestedRun, run: TestedRun) -> str:
    """Return how the settings differ that candidates depend on; nothing where they do not."""
    keys = [f"data.init_args.{key}" for key in CANDIDATE_SETTINGS]
    other = differing(first.config, run.config)
    told = [f"{key} is {other[key][0]} there and {other[key][1]} here" for key in keys if key in other]
    return f" ({', '.join(told)})" if told else ""


def _test_again(run: TestedRun) -> str:
    return f"`python -m g2r_lightning test -c {run.folder}/config.yaml` ranks them anew"


def _first_other(ours: pa.ChunkedArray, theirs: pa.ChunkedArray) -> int:
    """Return the first place at which two columns differ."""
    if pa.types.is_nested(ours.type):
        pairs = zip(ours.to_pylist(), theirs.to_pylist(), strict=True)
        return next(place for place, (left, right) in enumerate(pairs) if left != right)
    return int(pc.index(pc.not_equal(ours, theirs), True).as_py())


def described(systems: Sequence[System]) -> dict[str, list[Mapping[str, Any]]]:
    """Return what a record of a comparison says of each system's runs: folder, stage, seed, hashes of what was read."""
    return {
        system.name: [
            {"folder": str(run.folder), "stage": run.stage, "seed": run.seed, "sha256": run.hashes}
            for run in system.runs
        ]
        for system in systems
    }
