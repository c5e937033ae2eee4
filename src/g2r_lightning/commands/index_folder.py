"""The folders of ``index``: the place it goes to, the work beside it, and how one becomes the other."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from g2r_lightning.commands.index_contexts import Contexts
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index.assembly import VectorSet, assemble, assembled
from g2r_lightning.index.building import INDEX
from g2r_lightning.index.choosing import Chosen, choose, plan_of
from g2r_lightning.index.faiss_search import LISTS
from g2r_lightning.index.folder import (
    EMBEDDINGS,
    FAISS,
    MANIFEST,
    RESPONSES,
    check_files,
    described_index,
    read_manifest,
    write_manifest,
)
from g2r_lightning.index.wish import Wish, check_disk
from g2r_lightning.inference.deployment import DEPLOYED
from g2r_lightning.paths import discard_folder, replaced_folder
from g2r_lightning.progress import progress_bar
from g2r_lightning.store.json_file import read_json
from g2r_lightning.student import StudentEncoder, StudentText, save_student
from g2r_lightning.student.persistence import WEIGHTS, weights_hash

CHANGES = "overlay"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Making:
    """An index that is being made.

    Args:
        output: its folder.
        asked: what makes it another one than what may be there.
        wish: what kind it is to be.
        facts: run and checkpoint.
    """

    output: Path
    asked: dict[str, Any]
    wish: Wish
    facts: dict[str, Any]

    @property
    def work(self) -> Path:
        """Folder of what is made on the way."""
        return self.output.with_name(f"{self.output.name}.work")


def check_place(output: Path) -> None:
    """Refuse to replace what is no index.

    Raises:
        ConfigError: the place holds something else.
    """
    if output.is_dir() and any(output.iterdir()):
        try:
            read_manifest(output)
        except G2RError as error:
            damaged = (output / MANIFEST).is_file()
            what = "a damaged index, which is not replaced; delete it" if damaged else "no index, and would be replaced"
            raise ConfigError(f"--index.output={output}: this is {what}: {error}") from error
    elif output.exists() and not output.is_dir():
        raise ConfigError(f"--index.output={output}: this is a file; name a folder")


def check_changes(output: Path, damage: G2RError | None = None) -> None:
    """Refuse to replace an index whose responses were changed since it was built.

    Args:
        output: its folder.
        damage: what is wrong with it, if anything is.

    Raises:
        ConfigError: says how to keep the changes.
    """
    changes = output / CHANGES
    if changes.is_dir() and any(changes.iterdir()):
        if damage is not None:
            raise ConfigError(
                f"{damage}; that would lose the responses that were added or removed since: restore the file, or build "
                f"at another --index.output and change that one, or delete {changes}"
            ) from damage
        raise ConfigError(
            f"{output}: responses were added or removed since it was built, which a new build would lose: fold them in "
            f"with `index compact`, build at another --index.output, or delete {changes}"
        )


def finished(making: Making) -> bool:
    """Whether the very index that is asked for is there, whole as far as loading looks."""
    if not (making.output / MANIFEST).is_file():
        return False
    manifest = read_json(making.output / MANIFEST)
    if manifest.get("asked") != making.asked:
        return False
    try:
        check_files(making.output, manifest)
    except G2RError as error:
        check_changes(making.output, error)
        log.warning("%s: that is done now", error)
        return False
    return True


def make(
    making: Making, vectors: VectorSet, encoder: StudentEncoder, text: StudentText, contexts: Contexts | None
) -> dict[str, Any]:
    """Assemble, build, measure, choose; put the index into its place and return its manifest.

    The caller holds the folder of work alone.

    Raises:
        G2RError: what is wanted does not fit, or does not reach the recall that is asked for.
    """
    wish = making.wish
    plan_of(wish, vectors.count, vectors.dimension, contexts is not None)
    if not (making.work / EMBEDDINGS).is_file():
        size = vectors.count * vectors.dimension * (2 if wish.dtype == "float16" else 4)
        check_disk(making.output, 2 * size)
    begun = time.perf_counter()
    with progress_bar(total=vectors.count, desc="assembling", unit=" responses", leave=False) as bar:
        assemble(vectors, making.work, wish.dtype, lambda done: _advance(bar, done))
    queries = None if contexts is None else contexts.queries()
    table, embeddings = assembled(making.work)
    with _Bar(vectors.count) as shown:
        chosen = choose(making.work, table, embeddings, wish, queries, shown)
    facts = {
        **described_index(chosen.index),
        **vectors.told,
        **making.facts,
        "columns": table.column_names,
        "measured": chosen.measured,
        "built": chosen.facts,
        "memory_limit": wish.limit,
        "asked": making.asked,
        "seconds": round(time.perf_counter() - begun, 1),
    }
    manifest = _placed(making, chosen, encoder, text, facts)
    discard_folder(making.work)
    return manifest


def _placed(
    making: Making, chosen: Chosen, encoder: StudentEncoder, text: StudentText, facts: dict[str, Any]
) -> dict[str, Any]:
    """Move the files that were made into the folder of the index, and an export of the same student with it."""
    with replaced_folder(making.output) as fresh:
        save_student(encoder, text, fresh / "student")
        for name in (RESPONSES, EMBEDDINGS):
            (making.work / name).replace(fresh / name)
        if chosen.folder is not None:
            (chosen.folder / INDEX).replace(fresh / FAISS)
            if (chosen.folder / LISTS).is_file():
                (chosen.folder / LISTS).replace(fresh / LISTS)
        manifest = write_manifest(fresh, facts)
        if (exports := making.output / DEPLOYED).is_dir() and _of_one_student(making, fresh):
            shutil.copytree(exports, fresh / DEPLOYED)
    return manifest


def _of_one_student(making: Making, fresh: Path) -> bool:
    """Whether the index that is there and the one that takes its place are of the same student."""
    if read_json(making.output / MANIFEST).get("asked") == making.asked:
        return True  # also where its weights are damaged now
    try:
        return weights_hash(making.output / "student" / WEIGHTS) == weights_hash(fresh / "student" / WEIGHTS)
    except G2RError as error:
        log.warning("%s; the exports of that student, %s, go with it", error, making.output / DEPLOYED)
        return False


def _advance(bar: Any, done: int) -> None:
    bar.update(done)


class _Bar:
    """Tell of each index that is built how many vectors it holds."""

    def __init__(self, total: int) -> None:
        self._total, self._name, self._bar = total, "", progress_bar(disable=True)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, name: str, done: int) -> None:
        if name != self._name:
            self._bar.close()
            self._name = name
            self._bar = progress_bar(total=self._total, desc=f"building {name}", unit=" vectors", leave=False)
        self._bar.update(done)
