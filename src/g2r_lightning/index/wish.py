"""What kind of index is wanted, and what is said where it cannot be had: why, and what could."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index.candidates import automatic, exact_factory, need
from g2r_lightning.index.memory import GIB, Need
from g2r_lightning.index.response_index import EXACT

AUTO = "auto"
Dtype = Literal["float32", "float16"]
MEASURABLE = "name dialogues with --index.contexts=FILE, or an experiment with validation sets with -c"


@dataclass(frozen=True)
class Wish:
    """What kind of index is wanted.

    Args:
        factory: FAISS factory string, or ``auto``.
        search: search parameters to take instead of tuning them.
        recall: recall target, 0 to 1.
        recall_at: the k of it.
        limit: bytes of memory that may be taken, building and searching.
        dtype: of the embeddings.
    """

    factory: str
    search: Mapping[str, float] | None
    recall: float
    recall_at: int
    limit: int
    dtype: Dtype = "float32"


def check_exact_alone(wish: Wish, count: int, dimension: int) -> None:
    """Refuse, where faiss is missing, whatever needs it.

    Raises:
        ConfigError: another index than an exact one was asked for.
        G2RError: the vectors do not fit into memory.
    """
    if wish.factory not in (AUTO, EXACT):
        raise ConfigError(f"--index.factory={wish.factory} needs faiss: pip install faiss-cpu, or use {EXACT}")
    size = need(EXACT, count, dimension, wish.dtype).resident
    if size > wish.limit:
        raise G2RError(
            f"an exact search of {count:,} responses takes {gib(size)} of memory, and {gib(wish.limit)} may be taken; "
            "a smaller index needs faiss: pip install faiss-cpu"
        )


def too_large(wish: Wish, own: Need, count: int, dimension: int) -> str:
    """Return why an index that was asked for by name is refused, with what would fit.

    Args:
        wish: what is wanted.
        own: what that takes.
        count: number of responses.
        dimension: d.
    """
    size = max(own.resident, own.least)
    options = []
    for factory in automatic(count, dimension, wish.dtype):
        other = need(factory, count, dimension, wish.dtype)
        if factory != wish.factory and other.fits(wish.limit):
            options.append(f"--index.factory={factory} ({gib(max(other.index, other.least))})")
    if wish.factory == EXACT and wish.dtype == "float32" and own.index // 2 <= wish.limit:
        options.append(f"--index.dtype=float16 ({gib(own.index // 2)}, a little coarser)")
    options.append(f"--index.memory_limit={size / GIB + 0.01:.2f} where the machine has it")
    return (
        f"--index.factory={wish.factory} over {count:,} responses of {dimension} dimensions takes {gib(size)} of "
        f"memory, and {gib(wish.limit)} may be taken; what would fit: {'; '.join(options)}"
    )


def nothing_fits(wish: Wish, needs: Mapping[str, Need], count: int, tunable: bool) -> str:
    """Return why ``auto`` has nothing to build.

    Args:
        wish: what is wanted.
        needs: what each index takes that could be tried.
        count: number of responses.
        tunable: whether there are real contexts.
    """
    smallest = min(needs, key=lambda factory: max(needs[factory].index, needs[factory].least))
    size = max(needs[smallest].index, needs[smallest].least)
    if not tunable and size <= wish.limit:
        exact = needs[exact_factory(wish.dtype)]
        return (
            f"an exact search of {count:,} responses takes {gib(exact.index)} of memory, and {gib(wish.limit)} may be "
            f"taken; a smaller index has to be tuned on real contexts: {MEASURABLE}"
        )
    return (
        f"no index over {count:,} responses fits into {gib(wish.limit)}; the smallest, {smallest}, takes {gib(size)}: "
        f"--index.memory_limit={size / GIB + 0.01:.2f}, or fewer responses"
    )


def check_disk(folder: Path, wanted: int) -> None:
    """Refuse what the disk has no room for.

    Args:
        folder: where to, or the nearest folder above that exists.
        wanted: bytes.

    Raises:
        G2RError: says how much is free.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    if free < wanted:
        raise G2RError(
            f"{folder}: the work takes about {gib(wanted)} of disk, and {gib(free)} are free; choose a place with more "
            "room with --index.output, or halve the vectors with --index.dtype=float16"
        )


def gib(size: int) -> str:
    """Return bytes as people read them.

    >>> gib(3 << 29)
    '1.50 GiB'
    """
    return f"{size / GIB:.2f} GiB"
