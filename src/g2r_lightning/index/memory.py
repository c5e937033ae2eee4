"""How much memory an index will take, before anything is built: an empty one of the same kind tells it.

FAISS makes an empty index of any factory string in no time. Its parts know what a vector will cost in them:

- codes: ``code_size`` bytes a vector (4 d for ``Flat``, d for ``SQ8``, d / 8 and some for ``RaBitQ``);
- cells of ``IVF``: a centroid of 4 d bytes each, and an id of 8 bytes a vector;
- the graph of ``HNSW``: 2 M links on the ground floor, M a floor above, where one in M vectors stands; 4 bytes a link.

What must be in memory is another question. A search of cells reads a few of them, so the rest may stay on disk; a
search of all codes, or along a graph, wants all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from g2r_lightning.errors import ConfigError

GIB = 1 << 30
BLOCK = 65_536  # vectors that are added at a time
TRAINING_COPIES = 2  # the sample, and what a quantiser makes of it (residuals)
FAST_SCAN = 32  # codes that are packed together; the last pack of a list is filled up


@dataclass(frozen=True, slots=True)
class Need:
    """What an index takes.

    Args:
        index: bytes of the whole index, on disk as in memory.
        resident: bytes of it that searching wants in memory.
        building: bytes that making it takes at its peak, if it is made in memory.
        least: bytes that making it takes at least: part by part on the disk, where its kind can be made so.
    """

    index: int
    resident: int
    building: int
    least: int

    def fits(self, limit: int) -> bool:
        """Whether it can be made, and searched without waiting for a disk."""
        return self.index <= limit and self.least <= limit


def need_of(factory: str, count: int, dimension: int, training: int) -> Need:
    """Return what an index takes.

    Args:
        factory: FAISS factory string.
        count: number of vectors.
        dimension: d.
        training: vectors of the training sample.

    Raises:
        ConfigError: FAISS does not know the factory string.
    """
    empty = empty_index(factory, dimension)
    try:
        size = index_bytes(empty, count)
    except RuntimeError as error:  # a graph without links: FAISS makes it, and fails when it is asked anything
        raise _refusal(factory, dimension, error) from error
    work = min(BLOCK, count) * 4 * dimension + TRAINING_COPIES * training * 4 * dimension
    cells = cells_of(empty)
    if cells is None:
        return Need(size, size, size + work, size + work)
    resident = index_bytes(empty, 0)
    by_parts = size if packed(cells) else resident
    return Need(size, resident, size + work, by_parts + work)


def empty_index(factory: str, dimension: int) -> Any:
    """Return an untrained index of FAISS.

    Raises:
        ConfigError: the factory string is unknown.
    """
    import faiss

    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise _refusal(factory, dimension, error) from error
    cells = cells_of(index)
    if cells is not None and not cells.nlist:
        raise _refusal(factory, dimension, "there are no cells to put them into")
    return index


def _refusal(factory: str, dimension: int, reason: object) -> ConfigError:
    told = str(reason).strip().splitlines()[-1]
    return ConfigError(f"faiss cannot build {factory!r} for vectors of {dimension} dimensions: {told}")


def cells_of(index: Any) -> Any:
    """Return the index with inverted lists within an index, or ``None``."""
    import faiss

    return faiss.try_extract_index_ivf(index)


def packed(cells: Any) -> bool:
    """Whether the lists hold their codes in packs, which cannot be merged on the disk."""
    import faiss

    return isinstance(faiss.downcast_index(cells), faiss.IndexIVFFastScan)


def index_bytes(index: Any, count: int) -> int:
    """Return the bytes of an index when it will hold ``count`` vectors; a kind that is not known counts as ``Flat``."""
    import faiss

    core = faiss.downcast_index(index)  # a look at it, which does not keep it: `index` does
    if isinstance(core, faiss.IndexPreTransform):
        steps = (core.chain.at(place) for place in range(core.chain.size()))
        return index_bytes(core.index, count) + sum(map(_transform_bytes, steps))
    if isinstance(core, faiss.IndexRefine):
        return index_bytes(core.base_index, count) + index_bytes(core.refine_index, count)
    if isinstance(core, faiss.IndexIVF):
        return _cells_bytes(core, count)
    if isinstance(core, faiss.IndexHNSW):
        return index_bytes(core.storage, count) + _graph_bytes(core.hnsw.nb_neighbors(1), count)
    if isinstance(core, faiss.IndexNSG):
        return index_bytes(core.storage, count) + count * 4 * int(core.nsg.R)
    if isinstance(core, faiss.IndexFastScan):
        return -(-count // FAST_SCAN) * FAST_SCAN * int(core.code_size) + _tables_bytes(core)
    if isinstance(core, faiss.IndexFlatCodes):
        return count * int(core.code_size) + _tables_bytes(core)
    return count * 4 * int(core.d)


def _cells_bytes(index: Any, count: int) -> int:
    import faiss

    fast = isinstance(index, faiss.IndexIVFFastScan)
    whole = fast and hasattr(index, "rabitq")  # its code_size leaves out two factors a vector
    code, cells = int(index.rabitq.code_size if whole else index.code_size), int(index.nlist)
    padding = cells * (FAST_SCAN // 2) * code if fast and count else 0
    return count * (code + 8) + padding + 8 * cells + index_bytes(index.quantizer, cells) + _tables_bytes(index)


def _graph_bytes(links: int, count: int) -> int:
    """Return the bytes of HNSW's graph: M links a floor, twice as many on the ground floor, and where they begin."""
    above = links / max(links - 1, 1)  # 1/M + 1/M^2 + ... floors above the ground floor, M links each
    return int(count * (4 * (2 * links + above) + 8 + 4))


def _transform_bytes(step: Any) -> int:
    """Return the bytes of a linear transformation; PCA keeps the directions that it leaves out too."""
    import faiss

    size, kept = int(step.d_in), int(step.d_out)
    whole = isinstance(faiss.downcast_VectorTransform(step), faiss.PCAMatrix)
    return 4 * (size + 1) * kept + (4 * size * (size + 2) if whole else 0)


def _tables_bytes(index: Any) -> int:
    """Return the bytes of a codec's own tables, whatever the number of vectors."""
    if hasattr(index, "pq"):
        return int(4 * index.pq.ksub * index.d)
    return 8 * int(index.d)
