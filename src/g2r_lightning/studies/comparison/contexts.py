"""The contexts where two systems differ most: what the figures are made of, to be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from g2r_lightning.studies.comparison.systems import System


@dataclass(frozen=True, slots=True)
class Answer:
    """What one run made of a context.

    Args:
        run: its name.
        list_rank: of the human response among its candidates.
        full_rank: of the human response among all responses.
        reply: the best reply.
        source: who wrote it.
    """

    run: str
    list_rank: int
    full_rank: int
    reply: str
    source: str


@dataclass(frozen=True, slots=True)
class ContextPair:
    """One context, and what two systems made of it.

    Args:
        first: name of a system.
        second: name of the other.
        better: which of them ranks the human response better.
        set_name: name of the test set.
        example_id: of the example.
        context: its utterances.
        response: the human one.
        list_size: candidates it was ranked among.
        change: second's reciprocal rank minus first's, means over runs.
        first_answers: one a run of the first system.
        second_answers: one a run of the second.
    """

    first: str
    second: str
    better: str
    set_name: str
    example_id: str
    context: tuple[str, ...]
    response: str
    list_size: int
    change: float
    first_answers: tuple[Answer, ...]
    second_answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    change: float
    tie: float
    set_name: str
    example_id: str
    dialogue: str
    row: int


def widest_contexts(
    systems: Sequence[System], pairs: Sequence[tuple[int, int]], sets: Sequence[str], count: int
) -> list[ContextPair]:
    """Return the contexts in which the ranks of the human response lie farthest apart, for each pair and direction.

    Ordered by the difference of the reciprocal rank among the candidates, then by the ratio of ranks among all
    responses; one context a dialogue, so that one odd dialogue does not fill the page.

    Args:
        systems: all of them.
        pairs: (first, second) by place.
        sets: names of the test sets.
        count: contexts a direction.
    """
    found = []
    for a, b in pairs:
        places = [place for name in sets for place in _places(systems[a], systems[b], name)]
        for sign, better in ((1, systems[b].name), (-1, systems[a].name)):
            ordered = sorted(
                (place for place in places if sign * place.change > 0),
                key=lambda place: (-abs(place.change), -sign * place.tie, place.set_name, place.example_id),
            )
            chosen: dict[str, _Place] = {}
            for place in ordered:
                if len(chosen) == count:
                    break
                chosen.setdefault(place.dialogue, place)
            found += [_pair(systems[a], systems[b], better, place) for place in chosen.values()]
    return found


def _places(first: System, second: System, name: str) -> list[_Place]:
    table = first.runs[0].sets[name]
    change = _mean(second, name, "list_rank", np.reciprocal) - _mean(first, name, "list_rank", np.reciprocal)
    tie = _mean(first, name, "full_rank", np.log) - _mean(second, name, "full_rank", np.log)
    rows = np.flatnonzero(change)
    ids, dialogues = (table[column].take(pa.array(rows)).to_pylist() for column in ("example_id", "dialogue_id"))
    return [
        _Place(float(change[row]), float(tie[row]), name, one, dialogue, int(row))
        for row, one, dialogue in zip(rows.tolist(), ids, dialogues, strict=True)
    ]


def _mean(system: System, name: str, column: str, scale: np.ufunc) -> npt.NDArray[np.float64]:
    """Return the mean over a system's runs of a function of the ranks: (n,)."""
    ranks = [run.sets[name][column].to_numpy().astype(np.float64) for run in system.runs]
    mean: npt.NDArray[np.float64] = np.mean([scale(one) for one in ranks], axis=0)
    return mean


def _pair(first: System, second: System, better: str, place: _Place) -> ContextPair:
    row = first.runs[0].sets[place.set_name].slice(place.row, 1).to_pylist()[0]
    return ContextPair(
        first.name, second.name, better, place.set_name, place.example_id, tuple(row["context"]), row["response"],
        row["list_size"], place.change, _answers(first, place), _answers(second, place),
    )  # fmt: skip


def _answers(system: System, place: _Place) -> tuple[Answer, ...]:
    rows = [run.sets[place.set_name].slice(place.row, 1).to_pylist()[0] for run in system.runs]
    return tuple(
        Answer(run.name, row["list_rank"], row["full_rank"], row["reply"], row["reply_source"])
        for run, row in zip(system.runs, rows, strict=True)
    )
