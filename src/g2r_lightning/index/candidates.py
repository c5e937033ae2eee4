"""Which indexes are worth trying for a response set, and which of their settings.

Up to :data:`EXACT_UP_TO` responses an exact search takes some milliseconds: nothing else is tried. Beyond, five kinds
are tried beside it, as far as they fit into memory; what they find is scored anew by the exact vectors, so a coarse
code costs few:

- ``IVF,SQ8``: cells of similar vectors, a byte a number; few cells are visited.
- ``RR,IVF,RaBitQ``: the same, a bit a number behind a random rotation (Gao and Long 2024); small.
- ``IVF,PQ{d/4}x4fs``: the same size, half a byte for four numbers, read 32 codes at a time (André et al. 2021); the
  quickest of them on the million responses of docs/results/index_frontier.md. For d a multiple of 4.
- ``HNSW,SQ8``: a graph to walk along; quick, large, and slow to build, so not beyond :data:`GRAPH_UP_TO`.
- ``SQ8``: all codes are read; slow, and the surest. Not beyond :data:`ALL_CODES_UP_TO`.

A setting is a line of values that grow dearer (``nprobe``, ``efSearch``, ``refine``), so that a search for the first
that is good enough can stop there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from g2r_lightning.index.faiss_search import REFINE, innermost
from g2r_lightning.index.memory import Need, cells_of, empty_index, need_of
from g2r_lightning.index.response_index import EXACT

EXACT_UP_TO = 200_000
GRAPH_UP_TO = 1_000_000
ALL_CODES_UP_TO = 1_000_000
EXACT_HALF = "SQfp16"  # exact over half-precision vectors: its codes are the vectors
MANY_CELLS = 16_384  # from which on the centroids have a graph of their own
POINTS_A_CELL, FEWEST_POINTS_A_CELL = 64, 40  # FAISS warns below 39
Setting = dict[str, float]
Line = list[Setting]


def cells_for(count: int) -> int:
    """Return how many cells: about 4 times the root of the number of vectors, a power of two, none of them starved.

    >>> [cells_for(count) for count in (1_000, 200_000, 1_000_000, 50_000_000)]
    [16, 2048, 4096, 32768]
    """
    wanted = round(math.log2(4 * math.sqrt(count)))
    most = math.floor(math.log2(max(count / FEWEST_POINTS_A_CELL, 1)))
    return 1 << min(wanted, most)


def training_size(factory: str, count: int, dimension: int) -> int:
    """Return how many vectors an index is trained on.

    Args:
        factory: FAISS factory string.
        count: vectors there are.
        dimension: d.

    Raises:
        ConfigError: FAISS does not know the factory string.
    """
    if factory == EXACT:
        return 0
    empty = empty_index(factory, dimension)
    cells = cells_of(empty)
    if cells is None:
        return min(count, 65_536)
    each = POINTS_A_CELL if cells.nlist < MANY_CELLS else FEWEST_POINTS_A_CELL
    return min(count, max(each * int(cells.nlist), 65_536))


def exact_factory(dtype: str) -> str:
    """Return the factory string that is exact over vectors of a type, ``float32`` or ``float16``."""
    return EXACT if dtype == "float32" else EXACT_HALF


def automatic(count: int, dimension: int, dtype: str = "float32") -> list[str]:
    """Return the factory strings to try for a response set, the exact one first.

    Args:
        count: number of responses.
        dimension: d.
        dtype: of the embeddings.
    """
    found = [exact_factory(dtype), *_with_cells(count, dimension)]
    found += ["HNSW32,SQ8"] if EXACT_UP_TO < count <= GRAPH_UP_TO else []
    return [*found, "SQ8"] if count <= ALL_CODES_UP_TO else found


def _with_cells(count: int, dimension: int) -> list[str]:
    cells = cells_for(count)
    coarse = f"IVF{cells}" if cells < MANY_CELLS else f"IVF{cells}_HNSW32"
    found = [f"{coarse},SQ8", f"RR{dimension},{coarse},RaBitQ"]
    return found if dimension % 4 else [*found, f"{coarse},PQ{dimension // 4}x4fs"]


def need(factory: str, count: int, dimension: int, dtype: str = "float32") -> Need:
    """Return the memory that an index takes, the embeddings of an exact search included; see :func:`need_of`.

    Raises:
        ConfigError: FAISS does not know the factory string.
    """
    if factory == EXACT:
        size = count * dimension * (4 if dtype == "float32" else 2)
        return Need(size, size, 0, 0)
    return need_of(factory, count, dimension, training_size(factory, count, dimension))


def lines_of(factory: str, count: int, dimension: int) -> list[Line]:
    """Return the settings worth measuring: lines that ascend in cost, each with another ``refine``.

    Args:
        factory: FAISS factory string.
        count: number of responses.
        dimension: d.

    Raises:
        ConfigError: FAISS does not know the factory string.
    """
    if factory in (EXACT, EXACT_HALF):
        return [[{}]]
    import faiss

    empty = empty_index(factory, dimension)
    factors = _refinements(factory, innermost(empty))
    cells = cells_of(empty)
    if cells is not None:
        probes = [2**power for power in range(12) if 2**power <= cells.nlist]
        return [[{"nprobe": probe, REFINE: factor} for probe in probes] for factor in factors]
    if isinstance(innermost(empty), faiss.IndexHNSW):
        breadths = [2**power for power in range(4, 11) if 2**power <= 2 * count]
        return [[{"efSearch": breadth, REFINE: factor} for breadth in breadths] for factor in factors]
    return [[{REFINE: factor} for factor in factors]]


def _refinements(factory: str, core: Any) -> Sequence[int]:
    """Return how many times too many are worth finding, by how coarse the codes are."""
    if hasattr(core, "storage"):  # a graph's
        import faiss

        core = faiss.downcast_index(core.storage)
    bits = 8 * getattr(core, "code_size", 4 * core.d) / core.d
    if factory.endswith(("Flat", "fp16", "bf16")) or bits >= 16:
        return (1,)
    if bits >= 8:
        return (2, 4)
    return (2, 4, 10) if bits >= 4 else (4, 10, 20, 40)
