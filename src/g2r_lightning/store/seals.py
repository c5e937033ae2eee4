"""A checksum beside each shard of an unfinished folder, since a manifest tells them only when all shards are there.

A shard that was finished days ago, and whose bytes changed on the disk since, would be taken in as it is when the pass
goes on. The checksum is put there before the shard is, so that every shard has one; ``sha256sum -c .*.sha256``
reads them. The manifest holds them in the end, and the files go.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from g2r_lightning.errors import StoreError
from g2r_lightning.paths import atomic_path
from g2r_lightning.store.hashing import file_hash

SEAL = ".sha256"


@contextmanager
def sealed_path(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour to write to, as :func:`~g2r_lightning.paths.atomic_path`; its checksum goes beside it.

    Raises:
        G2RError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        yield temporary
        with atomic_path(_seal_of(path)) as seal:
            seal.write_text(f"{file_hash(temporary)}  {path.name}\n", encoding="utf-8")


def check_seal(path: Path) -> None:
    """Compare a shard with the checksum beside it; without one, nothing is compared (an earlier release wrote it).

    Raises:
        StoreError: it is not as it was written.
    """
    seal = _seal_of(path)
    if seal.is_file() and seal.read_bytes().decode(errors="replace").split() != [file_hash(path), path.name]:
        raise StoreError(
            f"{path}: changed since it was written (its checksum is in {seal.name}); delete both files and run the "
            "same command again"
        )


def remove_seals(folder: Path) -> None:
    """Remove the checksums of a folder that has a manifest now, or nothing at all."""
    for seal in folder.glob(f".*{SEAL}"):
        seal.unlink(missing_ok=True)


def _seal_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{SEAL}")
