"""Make a FAISS index over vectors on disk: trained on a sample, filled block by block, never all vectors in memory.

Where the whole index fits into memory it is filled there and written. Where it does not, and it has cells, the vectors
are added to several copies of the trained index, one after the other; each is written to disk, and their cells are
merged into one file, ``index.ivfdata``, that is memory-mapped ever after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from g2r_lightning.errors import ConfigError, G2RError, StoreError
from g2r_lightning.index.candidates import need, training_size
from g2r_lightning.index.faiss_search import LISTS
from g2r_lightning.index.memory import BLOCK, GIB, cells_of, empty_index
from g2r_lightning.paths import disk_trouble, inside, replaced_folder
from g2r_lightning.store.hashing import check_file, described_file
from g2r_lightning.store.json_file import read_json, write_json
from g2r_lightning.whole_files import write_faiss

INDEX = "index.faiss"
BUILT = "built.json"
FEWEST_IN_A_PART = BLOCK
Report = Callable[[int], None]


def built_index(
    folder: Path, vectors: npt.NDArray[Any], factory: str, limit: int, seed: int = 0, report: Report = lambda _: None
) -> dict[str, Any]:
    """Make the folder of an index, ``index.faiss`` and perhaps ``index.ivfdata``, unless it is there already.

    Args:
        folder: appears when the index is finished.
        vectors: (R, d) float32 or float16, a memory map.
        factory: FAISS factory string; not ``Flat``, which needs no index.
        limit: bytes of memory that may be taken.
        seed: of the training sample.
        report: called with the number of vectors added since the last call.

    Returns:
        ``build_seconds``, ``training_vectors``, ``parts``.

    Raises:
        ConfigError: FAISS refuses the factory string or the number of vectors.
        G2RError: it does not fit into memory.
    """
    if (found := _built(folder)) is not None:
        return found
    begun = time.perf_counter()
    count, dimension = vectors.shape
    training = training_size(factory, count, dimension)
    with replaced_folder(folder) as fresh, _refusals(factory, count):
        index = empty_index(factory, dimension)
        index.train(sample(vectors, training, seed))
        parts = _parts(factory, vectors, limit)
        if parts == 1:
            _filled(index, vectors, 0, count, fresh / INDEX, report)
        else:
            _merged(index, vectors, parts, fresh, report)
        facts = {
            "build_seconds": round(time.perf_counter() - begun, 3),
            "training_vectors": training,
            "parts": parts,
        }
        files = {path.name: described_file(path) for path in fresh.iterdir()}
        write_json(fresh / BUILT, {**facts, "files": files})
    return facts


def _built(folder: Path) -> dict[str, Any] | None:
    """Return what was told of an index that is there, and as it was written."""
    with suppress(StoreError):  # a damaged one is built again
        found = read_json(folder / BUILT)
        for name, told in found.pop("files").items():
            check_file(inside(folder, name), told, "", whole=True)
        return found
    return None


def sample(vectors: npt.NDArray[Any], count: int, seed: int) -> npt.NDArray[np.float32]:
    """Return ``count`` of the vectors as float32 (count, d), drawn without replacement, in the order of their rows."""
    if count >= len(vectors):
        return np.asarray(vectors, np.float32)
    rows = np.random.default_rng(seed).choice(len(vectors), count, replace=False, shuffle=False)
    return np.asarray(vectors[np.sort(rows)], np.float32)


def _parts(factory: str, vectors: npt.NDArray[Any], limit: int) -> int:
    """Return in how many parts an index has to be filled.

    Raises:
        G2RError: no number of parts is enough.
    """
    count, dimension = vectors.shape
    needed = need(factory, count, dimension)
    if needed.building <= limit:
        return 1
    if needed.least > limit:
        raise G2RError(
            f"{factory} over {count:,} vectors takes {needed.least / GIB:.2f} GiB to build, and {limit / GIB:.2f} GiB "
            "may be taken; raise --index.memory_limit, or choose --index.factory=auto"
        )
    room = max((limit - needed.least) // 2, 1)
    return min(-(-needed.index // room), max(int(count) // FEWEST_IN_A_PART, 2))


def _filled(index: Any, vectors: npt.NDArray[Any], start: int, end: int, path: Path, report: Report) -> None:
    """Add rows ``start`` to ``end`` under their own numbers, and write the index."""
    cells = cells_of(index)
    for first, block in _blocks(vectors, start, end):
        if cells is None:
            index.add(block)
        else:
            index.add_with_ids(block, np.arange(first, first + len(block), dtype=np.int64))
        report(len(block))
    write_faiss(path, index)


def _merged(index: Any, vectors: npt.NDArray[Any], parts: int, folder: Path, report: Report) -> None:
    """Fill copies of the trained index one after the other, and merge them on the disk."""
    import faiss
    from faiss.contrib.ondisk import merge_ondisk

    trained = folder / "trained"
    write_faiss(trained, index)
    bounds = np.linspace(0, len(vectors), parts + 1).astype(int).tolist()
    names = [str(folder / f"part-{number}") for number in range(parts)]
    for name, (start, end) in zip(names, pairwise(bounds), strict=True):
        _filled(faiss.read_index(str(trained)), vectors, start, end, Path(name), report)
    merge_ondisk(index, names, str(folder / LISTS))
    write_faiss(folder / INDEX, index)
    for left in (str(trained), *names):
        Path(left).unlink()


def _blocks(vectors: npt.NDArray[Any], start: int, end: int) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Yield first row and float32 vectors of some thousand rows at a time."""
    for first in range(start, end, BLOCK):
        yield first, np.ascontiguousarray(vectors[first : min(first + BLOCK, end)], np.float32)


@contextmanager
def _refusals(factory: str, count: int) -> Iterator[None]:
    """Turn what FAISS says of a factory string and a number of vectors into an error for the person at the keyboard."""
    try:
        yield
    except RuntimeError as error:
        if disk_trouble(error) is not None:
            raise
        reason = str(error).strip().splitlines()[-1]
        raise ConfigError(f"faiss cannot build {factory!r} over {count:,} vectors: {reason}") from error
