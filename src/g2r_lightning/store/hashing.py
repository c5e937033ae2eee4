"""Which data a store was made for, in two hashes.

``data_hash`` says *which* examples, in whatever order they come: the digests of (id, context, response) are sorted
before they are hashed. ``order_hash`` says in *which order* the ids come: a run may only be continued in the order in
which it began, since shard i is examples [i * n, (i + 1) * n).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from g2r_lightning.dialogue.types import Example
from g2r_lightning.errors import StoreError

SMALL = 32 * 2**20  # bytes: a tenth of a second


@dataclass(frozen=True, slots=True)
class DataDescription:
    """The identity of a set of examples.

    Args:
        data_hash: of (id, context, response) of every example, independent of their order; 64 hex digits.
        order_hash: of the ids in order; 64 hex digits.
        num_examples: how many there are.
    """

    data_hash: str
    order_hash: str
    num_examples: int


def describe_data(examples: Iterable[Example]) -> DataDescription:
    """Describe examples in one pass; 16 bytes and the id of each are held in memory.

    Raises:
        StoreError: two examples have the same id, the key of the store.
    """
    digests: list[bytes] = []
    ids: dict[str, None] = {}
    for example in examples:
        if example.id in ids:
            raise StoreError(f"two examples have the id {example.id!r}; give each data set its own `dataset` name")
        ids[example.id] = None
        content = json.dumps([example.id, list(example.context), example.response])
        digests.append(hashlib.blake2b(content.encode(), digest_size=16).digest())
    return DataDescription(
        data_hash=hashlib.sha256(b"".join(sorted(digests))).hexdigest(),
        order_hash=order_hash(ids),
        num_examples=len(digests),
    )


def data_hash(examples: Iterable[Example]) -> str:
    """Return the content hash of examples, whatever their order; see :func:`describe_data`."""
    return describe_data(examples).data_hash


def order_hash(ids: Iterable[str]) -> str:
    """Return the hash of a sequence of example ids."""
    total = hashlib.sha256()
    for example_id in ids:
        total.update(f"{json.dumps(example_id)}\n".encode())
    return total.hexdigest()


def texts_hash(texts: Iterable[Iterable[str]]) -> str:
    """Return the hash of lists of texts, in order."""
    total = hashlib.sha256()
    for own in texts:
        total.update(json.dumps(list(own)).encode() + b"\n")
    return total.hexdigest()


def described_file(path: Path) -> dict[str, Any]:
    """Return size and checksum of a file, as manifests tell them."""
    return {"bytes": path.stat().st_size, "sha256": file_hash(path)}


def check_file(path: Path, told: Mapping[str, Any], remedy: str, whole: bool = False) -> None:
    """Compare a file with what its manifest tells of it.

    The size is always compared. The checksum is where the file is read anyway or is small; a large one that is
    memory-mapped would take as long to look at as to read, so that is left to the build and to ``--verify``.

    Args:
        path: the file.
        told: ``bytes`` and ``sha256``.
        remedy: what to do where they differ.
        whole: compare the checksum whatever the size.

    Raises:
        StoreError: the file is missing, or is not as it was written.
    """
    if not path.is_file():
        raise StoreError(f"{path}: missing; {remedy}")
    if (size := path.stat().st_size) != told["bytes"]:
        raise StoreError(f"{path}: {size} bytes, but {told['bytes']} were written; {remedy}")
    if (whole or size <= SMALL) and file_hash(path) != told["sha256"]:
        raise StoreError(f"{path}: changed since it was written; {remedy}")


def file_hash(path: Path) -> str:
    """Return the sha256 of a file in hex; the file is read in blocks."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()
