"""Looking at replies: what each system said, where it fails, and where its replies lie among the responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from g2r_lightning.errors import G2RError
from g2r_lightning.index import load_responses
from g2r_lightning.metrics import cluster_bootstrap
from g2r_lightning.runs import RunFolder

COLUMNS = [
    "example_id", "dialogue_id", "context", "response", "list_rank", "full_rank", "reply", "reply_score",
    "reply_source",
]  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """Some of a run's examples, and how it fares on them.

    Args:
        name: what they have in common.
        examples: how many.
        hits: share whose human response is first in its list, 0 to 1.
        low: lower end of its 95% interval over dialogues; NaN of a single dialogue.
        high: upper end.
        recall: share whose human response is among the best ten of all.
    """

    name: str
    examples: int
    hits: float
    low: float
    high: float
    recall: float


def examples_of(run: Path) -> list[dict[str, Any]]:
    """Return a run's test examples, with ``set``, the name of the test set.

    Raises:
        G2RError: it kept none.
    """
    rows: list[dict[str, Any]] = []
    for name, path in RunFolder(run).example_files().items():
        own = pq.read_table(path, columns=COLUMNS).to_pylist()
        rows += [{**row, "set": name} for row in own]
    if not rows:
        raise G2RError(f"{run}: no examples/test-*.parquet; run `test -c {run}/config.yaml`")
    return rows


def side_by_side(runs: Mapping[str, Path], count: int) -> list[dict[str, Any]]:
    """Return contexts that all runs answered, evenly spaced, with each run's reply and the human response.

    Args:
        runs: system -> its run.
        count: how many contexts.

    Returns:
        ``set``, ``context``, ``response``, and ``replies``: system -> text, score, source and rank of the human
        response in its list.
    """
    tables = {name: {row["example_id"]: row for row in examples_of(path)} for name, path in runs.items()}
    first = next(iter(tables.values()))
    shared = [key for key in first if all(key in own for own in tables.values())]
    chosen = shared[:: max(len(shared) // max(count, 1), 1)][:count]
    return [
        {
            **{name: first[key][name] for name in ("set", "context", "response")},
            "replies": {
                name: {
                    "text": own[key]["reply"],
                    "score": own[key]["reply_score"],
                    "source": own[key]["reply_source"],
                    "rank": own[key]["list_rank"],
                }
                for name, own in tables.items()
            },
        }
        for key in chosen
    ]


def slices(rows: Sequence[Mapping[str, Any]]) -> list[Slice]:
    """Return how a run fares by test set, turns of the context, words of the human response, and reply's source."""
    kinds: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "set": lambda row: str(row["set"]),
        "turns of context": lambda row: _bin(len(row["context"]), (1, 2, 4, 8)),
        "words of response": lambda row: _bin(len(row["response"].split()), (2, 5, 10, 20)),
        "reply written by": lambda row: str(row["reply_source"]),
    }
    found = []
    for kind, name_of in kinds.items():
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            groups.setdefault(name_of(row), []).append(row)
        found += [_slice(f"{kind} {name}", groups[name]) for name in sorted(groups, key=_leading_number)]
    return found


def repeated(rows: Sequence[Mapping[str, Any]], count: int) -> list[tuple[str, int]]:
    """Return the replies that a run gave most often, each with how many contexts got it."""
    return Counter(str(row["reply"]) for row in rows).most_common(count)


def worst(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """Return the examples whose human response ranks lowest among all responses."""
    return sorted(rows, key=lambda row: (-row["full_rank"], row["example_id"]))[:count]


def plane(
    groups: Mapping[str, npt.NDArray[np.floating[Any]]],
) -> tuple[dict[str, npt.NDArray[np.floating[Any]]], list[float]]:
    """Return vectors of several kinds in the plane of their first two principal components.

    Args:
        groups: kind -> (n, d) vectors.

    Returns:
        Kind -> (n, 2) coordinates, and the part of the variance that each of the two shows.
    """
    whole = np.concatenate(list(groups.values())).astype(np.float64)
    centred = whole - whole.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    told = lengths**2 / max((lengths**2).sum(), np.finfo(float).tiny)
    flat = centred @ directions[:2].T
    ends = np.cumsum([len(own) for own in groups.values()])
    return dict(zip(groups, np.split(flat, ends[:-1]), strict=True)), told[:2].tolist()


def embedding_groups(
    index: Path, rows: Sequence[Mapping[str, Any]], most: int
) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """Return vectors of a response set by who wrote them, and of the replies that a run gave.

    Args:
        index: folder of the run's index.
        rows: the run's test examples.
        most: vectors of a kind, evenly spaced where there are more.

    Raises:
        G2RError: the folder holds no index.
    """
    found = load_responses(index)
    given = {str(row["reply"]) for row in rows}
    kinds: dict[str, list[int]] = {}
    for place, (text, source) in enumerate(zip(found.texts, found.sources, strict=True)):
        kinds.setdefault(f"{source} responses", []).append(place)
        if text in given:
            kinds.setdefault("replies given", []).append(place)
    kinds["replies given"] = kinds.pop("replies given", [])  # on top of the others
    return {
        kind: np.asarray(found.embeddings[places[:: -(-len(places) // most)]], np.float32)
        for kind, places in kinds.items()
        if places
    }


def _slice(name: str, rows: Sequence[Mapping[str, Any]]) -> Slice:
    hits = cluster_bootstrap(
        [row["list_rank"] == 1 for row in rows], [row["dialogue_id"] for row in rows], samples=1000
    )
    recall = sum(row["full_rank"] <= 10 for row in rows) / len(rows)
    return Slice(name, len(rows), hits.estimate, hits.low, hits.high, recall)


def _bin(number: int, ends: Sequence[int]) -> str:
    """Return the class of a number by the last ones of each class.

    >>> _bin(1, (1, 4)), _bin(3, (1, 4)), _bin(9, (1, 4))
    ('1', '2 to 4', '5 or more')
    """
    before = 0
    for end in ends:
        if number <= end:
            return str(end) if end == before + 1 else f"{before + 1} to {end}"
        before = end
    return f"{before + 1} or more"


def _leading_number(name: str) -> tuple[int, str]:
    first = name.split(" ", 1)[0]
    return (int(first), "") if first.isdigit() else (0, name)
