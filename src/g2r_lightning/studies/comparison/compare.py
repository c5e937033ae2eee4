"""Two or more systems on the same dialogues: every figure, how much it differs, and how sure that is.

:func:`compare_runs` is the whole of it: read and check the runs (``inputs``, ``systems``), make every figure a function
of the dialogues (``figures``), draw dialogues (:mod:`g2r_lightning.metrics.resampling`), correct the p-values over all
tests of the call, and find the contexts where the systems differ most (``contexts``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from g2r_lightning.metrics.resampling import Estimate, Sample, holm, resampled
from g2r_lightning.studies.comparison.contexts import ContextPair, widest_contexts
from g2r_lightning.studies.comparison.figures import (
    Block,
    ReplyWords,
    blocks,
    check_results,
    statistics,
)
from g2r_lightning.studies.comparison.inputs import JOINED, TOGETHER, ComparisonError, TestedRun, read_tested
from g2r_lightning.studies.comparison.notes import notes_on, notes_on_answers
from g2r_lightning.studies.comparison.systems import (
    System,
    answered_alike,
    check_comparable,
    checked,
    described,
    read_systems,
    system_settings,
)

Pairs = Literal["first", "all"]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how it is answered.

    Args:
        sets: names of the test sets, or of contexts without a human response that all answered; all that the runs have
            by default. Several test sets are compared together too (``all``).
        metrics: names of the figures, ``hits_at_1_of_20``; all by default. Fewer questions are corrected less.
        pairs: ``first`` compares every other system with the first, ``all`` each with each.
        samples: how many times dialogues are drawn.
        level: confidence level of the intervals.
        seed: of the draws.
        contexts: how many contexts are shown for each direction of a pair.
    """

    sets: Sequence[str] | None = None
    metrics: Sequence[str] | None = None
    pairs: Pairs = "first"
    samples: int = 10_000
    level: float = 0.95
    seed: int = 0
    contexts: int = 5

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.samples < 100 or not 0 < self.level < 1 or self.seed < 0 or self.contexts < 0:
            raise ComparisonError(
                f"samples={self.samples}, level={self.level}, seed={self.seed}, contexts={self.contexts}: 100 samples "
                "at least, a level between 0 and 1, nothing below 0"
            )
        for name in ("sets", "metrics"):
            if getattr(self, name) is not None and not getattr(self, name):
                raise ComparisonError(f"{name}=[]: nothing is asked; leave it out for all")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of one system, the mean over its runs.

    Args:
        system: its name.
        scope: name of a test set, or ``all`` for them together.
        metric: name of the figure.
        estimate: with its interval.
        runs: how many runs (seeds).
        values: of each run.
        dialogues: how many were drawn from.
        examples: how many it is about.
    """

    system: str
    scope: str
    metric: str
    estimate: Estimate
    runs: int
    values: tuple[float, ...]
    dialogues: int
    examples: int


@dataclass(frozen=True, slots=True)
class Difference:
    """The second system's figure minus the first's.

    Args:
        first: name of the system that is subtracted.
        second: name of the other.
        scope: name of a test set, or ``all``.
        metric: name of the figure.
        first_value: the first's figure.
        second_value: the second's.
        estimate: the difference, its interval and its own p-value.
        p_holm: the p-value corrected for all tests of the comparison.
        first_runs: how many runs (seeds) the first has.
        second_runs: the second.
        dialogues: how many were drawn from.
        examples: how many it is about.
    """

    first: str
    second: str
    scope: str
    metric: str
    first_value: float
    second_value: float
    estimate: Estimate
    p_holm: float
    first_runs: int
    second_runs: int
    dialogues: int
    examples: int

    @property
    def seeds_known(self) -> bool:
        """Whether the interval holds the spread between training seeds of both systems."""
        return min(self.first_runs, self.second_runs) > 1


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Args:
        question: what was asked.
        stage: of the results.
        systems: name -> its runs: folder, stage, seed, sha256 of every file that was read.
        settings: ``second over first`` -> setting -> both values, where the systems' configurations differ.
        scopes: ``all`` first where there are several sets, then the sets.
        figures: of each system.
        differences: of each pair.
        contexts: where the systems of each pair differ most.
        notes: what a reader has to know.
    """

    question: Question
    stage: str
    systems: Mapping[str, Sequence[Mapping[str, Any]]]
    settings: Mapping[str, Mapping[str, tuple[Any, Any]]]
    scopes: Sequence[str]
    figures: Sequence[Figure]
    differences: Sequence[Difference]
    contexts: Sequence[ContextPair]
    notes: Sequence[str]

    def figure(self, system: str, metric: str, scope: str = TOGETHER) -> Figure:
        """Return one system's figure.

        Raises:
            KeyError: it was not asked for.
        """
        found = [one for one in self.figures if (one.system, one.metric, one.scope) == (system, metric, scope)]
        if not found:
            raise KeyError(f"{scope}/{metric} of {system}")
        return found[0]

    def difference(self, first: str, second: str, metric: str, scope: str = TOGETHER) -> Difference:
        """Return one difference, second minus first.

        Raises:
            KeyError: it was not asked for.
        """
        wanted = (first, second, metric, scope)
        found = [one for one in self.differences if (one.first, one.second, one.metric, one.scope) == wanted]
        if not found:
            raise KeyError(f"{scope}/{metric} of {second} minus {first}")
        return found[0]

    @property
    def tests(self) -> int:
        """How many p-values were corrected together."""
        return sum(not np.isnan(one.estimate.p_value) for one in self.differences)


def compare_runs(
    systems: Sequence[str] | Mapping[str, Sequence[str | Path]],
    question: Question | None = None,
    *,
    stage: str = "test",
    join_seeds: bool = True,
) -> Comparison:
    """Compare two or more systems, each a run or several seeds of one setting.

    Args:
        systems: as on the command line (``["base=runs/b-1,runs/b-2", "runs/d"]``), or name -> folders.
        question: what is asked; every figure of every set by default, each system against the first.
        stage: which results are compared.
        join_seeds: whether folders without a name whose configurations differ in the seed alone are one system.

    Raises:
        ComparisonError: a run is not finished, or its files do not belong together; or the runs were tested on other
            examples or candidates; names the runs and the remedy.
    """
    if isinstance(systems, Mapping):
        read = [System(name, tuple(read_tested(one, stage) for one in folders)) for name, folders in systems.items()]
        return compare_systems(checked(read), question or Question(), stage)
    return compare_systems(read_systems(systems, stage, join_seeds), question or Question(), stage)


def compare_systems(systems: Sequence[System], question: Question, stage: str = "test") -> Comparison:
    """Compare systems that have been read; see :func:`compare_runs`."""
    answers = answered_alike(systems, question.sets or ())
    asked = [name for name in answers if question.sets is None or name in question.sets]
    sets = check_comparable(systems, question.sets and [name for name in question.sets if name not in answers])
    scopes = [TOGETHER, *sets, *asked] if len(sets) > 1 else [*sets, *asked]
    pairs = [(0, second) for second in range(1, len(systems))]
    if question.pairs == "all":
        pairs = list(combinations(range(len(systems)), 2))
    judged = _judged_alike(systems)
    words, figures, found = ReplyWords(), list[Figure](), list[Difference]()
    known: set[str] = set()
    for scope in scopes:
        tables = [[_scope(run, sets if scope == TOGETHER else [scope], judged) for run in s.runs] for s in systems]
        if scope in asked:
            tables = _alike(tables)
        known |= {key for block in blocks(tables[0][0], lambda _: True) for key in block.keys}
        for block in blocks(tables[0][0], lambda key: question.metrics is None or key in question.metrics):
            samples = _samples(systems, tables, block, scope, question, words)
            figures += _figures(systems, samples, block, scope)
            found += _differences(systems, samples, block, scope, pairs)
    _all_known(question.metrics, known)
    corrected = holm([one.estimate.p_value for one in found])
    found = [dataclasses.replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]
    order = [(systems[first].name, systems[second].name) for first, second in pairs]
    found.sort(key=lambda one: order.index((one.first, one.second)))  # stable: scopes and figures stay in order
    return Comparison(
        question, stage, described(systems),
        {f"{systems[b].name} over {systems[a].name}": system_settings(systems[a], systems[b]) for a, b in pairs},
        scopes, figures, found, widest_contexts(systems, pairs, sets, question.contexts),
        [*notes_on(systems, found, question.samples, judged), *notes_on_answers(systems, answers, asked, judged)],
    )  # fmt: skip


def _judged_alike(systems: Sequence[System]) -> list[str]:
    """Return the figures that one judge gave to the replies of all runs."""
    runs = [run for system in systems for run in system.runs]
    judges = {key: {run.judges.get(key) for run in runs} for key in JOINED}
    return [key for key, who in judges.items() if len(who) == 1 and None not in who]


def _scope(run: TestedRun, names: Sequence[str], judged: Sequence[str]) -> pa.Table:
    """Return the examples of some sets as one table, in the order of the sets and of the ids."""
    if names[0] in run.answers:
        table = run.answers[names[0]]
        others = [key for key in JOINED if key not in judged]  # of another judge
        return table.drop_columns(["context", "example_id", *(key for key in others if key in table.column_names)])
    columns = ["dialogue_id", "list_rank", "list_size", "full_rank", "reply", "reply_source"]
    return pa.concat_tables([run.sets[name].select([*columns, *judged]) for name in names])


def _alike(tables: Sequence[Sequence[pa.Table]]) -> list[list[pa.Table]]:
    """Return tables with the columns that all have: a run's answers need not be judged."""
    common = [key for key in tables[0][0].column_names if all(key in one.column_names for own in tables for one in own)]
    return [[one.select(common) for one in own] for own in tables]


def _samples(
    systems: Sequence[System],
    tables: Sequence[Sequence[pa.Table]],
    block: Block,
    scope: str,
    question: Question,
    words: ReplyWords,
) -> list[Sample]:
    """Return the figures of a block on the same draws for all runs: a sample a figure."""
    width = len(block.keys)
    every = []
    for system, own in zip(systems, tables, strict=True):
        for run, table in zip(system.runs, own, strict=True):
            made = statistics(table, block, words)
            if question.sets is None or scope != TOGETHER:
                check_results(run, scope, block.keys, [one.value for one in made])
            every += made
    values = np.array([one.value for one in every]).reshape(-1, width)
    draws = np.empty((0, *values.shape))
    if block.clusters > 1:
        draws = resampled(every, question.samples, question.seed).reshape(-1, *values.shape)
    ends = np.cumsum([len(system.runs) for system in systems]).tolist()
    places = [slice(end - len(system.runs), end) for end, system in zip(ends, systems, strict=True)]
    return [
        Sample(
            [values[place, column] for place in places], [draws[:, place, column] for place in places],
            block.clusters, question.seed, question.level,
        )
        for column in range(width)
    ]  # fmt: skip


def _figures(systems: Sequence[System], samples: Sequence[Sample], block: Block, scope: str) -> list[Figure]:
    return [
        Figure(
            system.name, scope, key, sample.of(place), len(system.runs), tuple(sample.values[place].tolist()),
            block.clusters, len(block.rows),
        )
        for place, system in enumerate(systems)
        for key, sample in zip(block.keys, samples, strict=True)
    ]  # fmt: skip


def _differences(
    systems: Sequence[System], samples: Sequence[Sample], block: Block, scope: str, pairs: Sequence[tuple[int, int]]
) -> list[Difference]:
    return [
        Difference(
            systems[a].name, systems[b].name, scope, key, float(sample.values[a].mean()),
            float(sample.values[b].mean()), sample.difference(a, b), float("nan"), len(systems[a].runs),
            len(systems[b].runs), block.clusters, len(block.rows),
        )
        for a, b in pairs
        for key, sample in zip(block.keys, samples, strict=True)
    ]  # fmt: skip


def _all_known(metrics: Sequence[str] | None, known: set[str]) -> None:
    """Refuse figures that the runs do not have."""
    for name in metrics or ():
        if name not in known:
            nearest = get_close_matches(name, sorted(known), 1, cutoff=0.4)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"they have {', '.join(sorted(known))}"
            judged = " (one judge must have judged all runs: docs/compare.md)" if name in JOINED else ""
            raise ComparisonError(f"--metrics: the runs have no figure '{name}'{judged}; {hint}")
