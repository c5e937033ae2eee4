"""FAISS as it is used here: searching vectors where they lie, one query on one thread, some rows only, from a file.

- An exact search needs no index: :class:`FlatSearch` lets FAISS read the embeddings in place, memory-mapped or not.
- Indexes are opened as memory maps, whatever their kind.
- Which rows may be found is a bitmap, handed over in the parameters that the kind of index reads. A kind that takes
  other parameters would pass over it in silence, so :func:`selecting` knows the kinds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from g2r_lightning.errors import ConfigError

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Keep = npt.NDArray[np.bool_]
REFINE, QUERY_BITS = "refine", "qb"
FRACTIONAL = ("k_factor_rf",)  # search parameters that need not be whole
MOST = 2**31 - 1  # of any search parameter
LISTS = "index.ivfdata"  # inverted lists that were merged on disk, beside the index


class FlatSearch:
    """Exact search of inner products over vectors where they lie: ``faiss.IndexFlatIP`` without its copy.

    Args:
        vectors: (R, d) float32, C-contiguous; a memory map stays one.
    """

    def __init__(self, vectors: Floats) -> None:
        self.vectors = np.ascontiguousarray(vectors)
        self.ntotal, self.d = vectors.shape

    def search(self, queries: Floats, k: int, params: Any = None) -> tuple[Floats, Rows]:
        """Return scores (B, k) and rows (B, k), best first; row -1 where there are fewer than k.

        Args:
            queries: (B, d) float32.
            k: how many.
            params: ``faiss.SearchParameters``; only its selector is read.
        """
        import faiss

        queries = np.ascontiguousarray(queries, np.float32)
        scores = np.empty((len(queries), k), np.float32)
        rows = np.empty((len(queries), k), np.int64)
        at = faiss.swig_ptr
        faiss.knn_inner_product(
            at(queries), at(self.vectors), self.d, len(queries), self.ntotal, k, at(scores), at(rows),
            None if params is None else params.sel,
        )  # fmt: skip
        return scores, rows


@contextmanager
def threads_for(queries: int) -> Iterator[None]:
    """Search one query on one thread, several on all of them.

    One query over two threads waits for the second: 143 ms instead of 61 for a million of 384 dimensions. OpenMP keeps
    the number for each thread that asks, so one thread's single query slows no other's batch.

    Args:
        queries: how many are searched within the block.
    """
    import faiss

    if queries != 1:
        yield
        return
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def found_rows(index: Any, queries: Floats, count: int, keep: Keep | None = None) -> Rows:
    """Return the rows (B, count) that an index finds, best first as far as it knows; -1 where it finds fewer.

    Args:
        index: of FAISS, or a :class:`FlatSearch`.
        queries: (B, d) float32.
        count: how many.
        keep: (R,) bool, the rows that may be found; all of them where ``None``.
    """
    params = None if keep is None else selecting(index, keep)
    if keep is not None and params is None:
        return np.full((len(queries), count), -1, np.int64)
    with threads_for(len(queries)):
        rows: Rows = index.search(queries, count, params=params)[1]
    if keep is not None:
        rows[(rows >= 0) & ~keep[rows]] = -1
    return rows


def selecting(index: Any, keep: Keep) -> Any:
    """Return search parameters that let some rows be found alone, or ``None`` for a kind that knows none such.

    An index that visits a part of the rows has to visit more of them where fewer may be found: its ``nprobe`` or
    ``efSearch`` grows as the share of kept rows falls.

    Args:
        index: of FAISS, or a :class:`FlatSearch`.
        keep: (R,) bool.
    """
    import faiss

    selector = faiss.IDSelectorBitmap(np.packbits(keep, bitorder="little"))
    return _parameters(index, selector, max(float(keep.mean()), 1 / len(keep)))


def _parameters(index: Any, selector: Any, share: float) -> Any:
    """Return the parameters of one kind of index, those of the index within it inside."""
    import faiss

    if isinstance(index, FlatSearch):
        return faiss.SearchParameters(sel=selector)
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        inner = _parameters(index.index, selector, share)
        return None if inner is None else faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = _parameters(index.base_index, selector, share)
        if inner is None:
            return None
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        cells = min(math.ceil(index.nprobe / share), index.nlist)
        if isinstance(index, faiss.IndexIVFRaBitQ):
            return faiss.IVFRaBitQSearchParameters(sel=selector, nprobe=cells, qb=index.qb)
        return faiss.SearchParametersIVF(sel=selector, nprobe=cells, max_codes=index.max_codes)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=math.ceil(index.hnsw.efSearch / share))
    if isinstance(index, faiss.IndexRaBitQ):
        return faiss.RaBitQSearchParameters(sel=selector, qb=index.qb)
    plain = (faiss.IndexFlat, faiss.IndexScalarQuantizer)
    return faiss.SearchParameters(sel=selector) if isinstance(index, plain) else None


def innermost(index: Any) -> Any:
    """Return the index that holds the codes: without a transformation before it or a refinement behind it."""
    import faiss

    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return innermost(index.index)
    return innermost(index.base_index) if isinstance(index, faiss.IndexRefine) else index


def set_search(index: Any, factory: str, search: Mapping[str, float]) -> None:
    """Set search parameters; they are part of the index, and are saved with it.

    Args:
        index: of FAISS, or a :class:`FlatSearch`.
        factory: its factory string, for the message.
        search: ``nprobe``, ``efSearch``, ``k_factor_rf``, ... as FAISS names them, and ``qb``, the bits of a query that
            RaBitQ reads. ``refine`` is not FAISS's and is passed over.

    Raises:
        ConfigError: the index has no such parameter, or none of this value.
    """
    check_search(search)
    wanted = {name: value for name, value in search.items() if name != REFINE}
    try:
        _set(index, wanted)
    except RuntimeError as error:
        told = ",".join(f"{name}={value:g}" for name, value in wanted.items())
        raise ConfigError(
            f"the index {factory!r} has no search parameters {told}: HNSW knows efSearch, IVF knows nprobe, RaBitQ "
            "knows qb; refine, how many times too many are found and rescored exactly, all of them know"
        ) from error


def check_search(search: Mapping[str, float]) -> None:
    """Refuse values that FAISS takes and then fails of at the first search; of ``qb`` above 8 it ends the process.

    Raises:
        ConfigError: names the parameter and what it may be.
    """
    for name, value in search.items():
        least, most = (0, 8) if name == QUERY_BITS else (1, MOST)
        whole = name not in FRACTIONAL
        if not least <= value <= most or (whole and value != int(value)):
            kind = "a whole number" if whole else "a number"
            raise ConfigError(f"search parameter {name}={value:g}: {kind} from {least} to {most}")


def _set(index: Any, wanted: Mapping[str, float]) -> None:
    """Set search parameters, or raise FAISS's RuntimeError."""
    import faiss

    settings = ",".join(f"{name}={value:g}" for name, value in wanted.items() if name != QUERY_BITS)
    if settings and isinstance(index, FlatSearch):
        raise RuntimeError(settings)
    if settings:
        faiss.ParameterSpace().set_index_parameters(index, settings)
    if QUERY_BITS in wanted:
        core: Any = None if isinstance(index, FlatSearch) else innermost(index)
        if not hasattr(core, QUERY_BITS):
            raise RuntimeError(QUERY_BITS)
        core.qb = int(wanted[QUERY_BITS])


def read_mapped(path: Path) -> Any:
    """Open an index as a memory map; its pages are read when a search needs them.

    Args:
        path: of ``index.faiss``; lists that were merged on disk lie beside it.

    Raises:
        RuntimeError: FAISS cannot read it.
    """
    import faiss

    if (path.parent / LISTS).is_file():
        return faiss.read_index(str(path), faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_ONDISK_SAME_DIR)
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
