"""From vectors on disk to the index that answers: what is built, what it is measured to be, and which one is taken.

1. Before anything is built, memory and disk are estimated (:func:`plan_of`); what cannot fit is refused, with what
   would.
2. Each index that is worth it is built (:mod:`building`), opened as it will be served, and measured (:mod:`tuning`).
3. The fastest that reaches the recall target is taken. Where none does, ``auto`` takes the most exact and says so; an
   index that was asked for by name is refused, with what it reaches, since nobody asked for worse answers.

Without real contexts nothing can be tuned: then the search is exact, or an index with the settings it was given.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index.building import INDEX, built_index
from g2r_lightning.index.candidates import (
    EXACT_UP_TO,
    Line,
    automatic,
    exact_factory,
    lines_of,
    need,
)
from g2r_lightning.index.columns import SOURCE, TEXT, TextColumn
from g2r_lightning.index.faiss_search import LISTS, read_mapped
from g2r_lightning.index.response_index import EXACT, ResponseIndex
from g2r_lightning.index.tuning import Measurement, Point, frontier
from g2r_lightning.index.wish import AUTO, Wish, check_exact_alone, nothing_fits, too_large

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """An index that was built, and why it was taken.

    Args:
        folder: of its files; ``None`` for an exact search, which has none.
        index: opened.
        measured: for the manifest: its own figures, the frontier, and every point that was measured.
        facts: of its building.
    """

    folder: Path | None
    index: ResponseIndex
    measured: dict[str, Any] | None
    facts: dict[str, Any]


def plan_of(wish: Wish, count: int, dimension: int, tunable: bool) -> list[str]:
    """Return the factory strings to build, or refuse what cannot fit.

    Args:
        wish: what is wanted.
        count: number of responses.
        dimension: d.
        tunable: whether there are real contexts.

    Raises:
        ConfigError: FAISS does not know the factory string, or it needs contexts to be tuned.
        G2RError: it does not fit into memory; says what would.
    """
    if importlib.util.find_spec("faiss") is None:
        check_exact_alone(wish, count, dimension)
        return [EXACT]
    exact = exact_factory(wish.dtype)
    if wish.factory != AUTO:
        own = need(wish.factory, count, dimension, wish.dtype)
        if own.resident > wish.limit or own.least > wish.limit:
            raise G2RError(too_large(wish, own, count, dimension))
        if not tunable and wish.search is None and wish.factory not in (EXACT, exact):
            raise ConfigError(
                f"--index.factory={wish.factory} has settings that trade recall for time, and there are no real "
                "contexts to tune them on: name dialogues with --index.contexts=FILE, or an experiment with validation "
                'sets with -c, or set them with --index.search=\'{"nprobe": 16, "refine": 4}\''
            )
        return [wish.factory]
    needs = {
        factory: need(factory, count, dimension, wish.dtype) for factory in automatic(count, dimension, wish.dtype)
    }
    fitting = [factory for factory, own in needs.items() if own.fits(wish.limit)]
    if exact in fitting and (count <= EXACT_UP_TO or not tunable):
        if count > EXACT_UP_TO:
            log.warning(
                "no real contexts, so nothing can be tuned: the search is exact, %d vectors a context; name dialogues "
                "with --index.contexts=FILE for a faster index",
                count,
            )
        return [exact]
    if not fitting or not tunable:
        raise G2RError(nothing_fits(wish, needs, count, tunable))
    return fitting


def choose(
    folder: Path,
    table: pa.Table,
    vectors: npt.NDArray[Any],
    wish: Wish,
    queries: Tensor | None,
    report: Callable[[str, int], None] = lambda *_: None,
) -> Chosen:
    """Build, measure, and return the index to take.

    Args:
        folder: where indexes are built; what is there already is not built again.
        table: ``text``, ``source`` and what else is told of the responses, memory-mapped.
        vectors: (R, d), memory-mapped.
        wish: what is wanted.
        queries: (Q, d) real contexts; ``None`` where there are none.
        report: called with what is being built and the number of vectors added since the last call.

    Raises:
        G2RError: see :func:`plan_of`; or the index that was asked for by name does not reach the target.
    """
    count, dimension = vectors.shape
    factories = plan_of(wish, count, dimension, queries is not None)
    measurement = None
    if queries is not None:
        measurement = Measurement(queries, min(wish.recall_at, count), wish.recall)
        measurement.know(opened(table, vectors))
    made: dict[str, Chosen] = {}
    points: list[Point] = []
    for factory in factories:
        one = made[factory] = built(folder, table, vectors, factory, wish.limit, report)
        lines: Sequence[Line] = lines_of(factory, count, dimension) if wish.search is None else [[dict(wish.search)]]
        if measurement is None:
            one.index.set_search(wish.search or {})
            return one
        points += measurement.along(one.index, lines, one.facts["bytes"], one.facts["build_seconds"])
    assert measurement is not None
    best = measurement.best(points)
    if not measurement.reached(best):
        _tell_or_refuse(wish, measurement, points, best)
    taken = made[best.factory]
    taken.index.set_search(best.search)
    return Chosen(taken.folder, taken.index, _told(wish, measurement, points, best), taken.facts)


def built(
    folder: Path,
    table: pa.Table,
    vectors: npt.NDArray[Any],
    factory: str,
    limit: int,
    report: Callable[[str, int], None] = lambda *_: None,
) -> Chosen:
    """Build one index, unless it is there, and open it as it will be served; not yet measured.

    Args:
        folder: where indexes are built.
        table: ``text`` and ``source`` of the responses.
        vectors: (R, d).
        factory: FAISS factory string.
        limit: bytes of memory that may be taken.
        report: see :func:`choose`.

    Raises:
        G2RError: it cannot be built, or not in so much memory.
    """
    if factory == EXACT:
        size = int(vectors.nbytes)
        return Chosen(None, opened(table, vectors, EXACT, None), None, {"bytes": size, "build_seconds": 0.0})
    place = folder / f"candidate-{blake2b(factory.encode(), digest_size=6).hexdigest()}"
    facts = built_index(place, vectors, factory, limit, report=lambda done: report(factory, done))
    size = sum(path.stat().st_size for name in (INDEX, LISTS) if (path := place / name).is_file())
    index = opened(table, vectors, factory, read_mapped(place / INDEX))
    return Chosen(place, index, None, {"bytes": size, **facts})


def opened(table: pa.Table, vectors: npt.NDArray[Any], factory: str = EXACT, faiss_index: Any = None) -> ResponseIndex:
    """Return an index over assembled vectors (:func:`~g2r_lightning.index.assembly.assembled`), which are finite."""
    texts, sources = TextColumn(table[TEXT]), TextColumn(table[SOURCE])
    return ResponseIndex(texts, sources, vectors, factory, faiss_index, checked=True)


def _told(wish: Wish, measurement: Measurement, points: Sequence[Point], best: Point) -> dict[str, Any]:
    """Return what a manifest says of the measurements."""
    return {
        "contexts": len(measurement.queries),
        "recall_at": measurement.at,
        "target": wish.recall,
        "reached": measurement.reached(best),
        **{key: value for key, value in best.as_dict().items() if key not in ("factory", "search")},
        "frontier": [point.as_dict() for point in frontier(points)],
        "points": [point.as_dict() for point in points],
    }


def _tell_or_refuse(wish: Wish, measurement: Measurement, points: Sequence[Point], best: Point) -> None:
    """Warn that nothing reaches the target, or refuse where an index was asked for by its name alone.

    Raises:
        G2RError: names what it reaches and what to do.
    """
    lines = [
        f"  recall@{measurement.at} {point.recall:.4f}, p50 {point.p50_ms:.2f} ms: {point.factory} {point.search}"
        for point in frontier(points)
    ]
    target = f"recall@{measurement.at} {wish.recall:g}"
    said = "\n".join([f"no setting reaches {target} in both halves of the contexts:", *lines])
    if wish.factory == AUTO or wish.search is not None:
        taken = "the most exact is taken" if wish.search is None else "it is taken as it was asked for"
        log.warning("%s\n%s: %s %s", said, taken, best.factory, best.search)
        return
    raise G2RError(
        f"--index.factory={wish.factory}: {said}\nAccept what it reaches with --index.recall="
        f"{int(best.worse_half * 1000) / 1000:g}, set its parameters with --index.search, or let --index.factory=auto "
        "choose; what was built so far is kept"
    )
