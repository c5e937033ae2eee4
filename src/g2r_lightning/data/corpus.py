"""From readers to examples: what was skipped is said, and evaluation dialogues never stand in train."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from g2r_lightning.dialogue import Dialogue, Example, dialogue_key
from g2r_lightning.dialogue.readers import read_contexts
from g2r_lightning.dialogue.readers.base import DialogueReader
from g2r_lightning.errors import DataError, G2RError

log = logging.getLogger(__name__)


def read_dialogues(readers: Sequence[DialogueReader]) -> list[Dialogue]:
    """Read every file and report how much of each had to be skipped, with the first reason.

    Raises:
        DataError: a file cannot be used at all.
        G2RError: two dialogues bear the same ``dataset:id``, which would mix up their candidates in the store.
    """
    dialogues: list[Dialogue] = []
    seen: dict[tuple[str, str], DialogueReader] = {}
    for reader in readers:
        count = 0
        for dialogue in reader:
            other = seen.setdefault((dialogue.dataset, dialogue.id), reader)
            if other is not reader or (count and dialogues[-1].id == dialogue.id):
                raise G2RError(
                    f"{reader.path}: dialogue '{dialogue.dataset}:{dialogue.id}' was already read from {other.path}; "
                    "give one of the readers another `dataset` name, or read the file once"
                )
            dialogues.append(dialogue)
            count += 1
        report_skipped(reader, count)
    return dialogues


def report_skipped(reader: DialogueReader, kept: int) -> None:
    """Say how many dialogues of a file could not be used, and why the first of them could not."""
    if reader.skipped:
        first = reader.skipped[0]
        log.warning(
            "%s: kept %d dialogues, skipped %d; the first at line %d: %s",
            reader.path, kept, len(reader.skipped), first.line, first.reason,
        )  # fmt: skip


def examples_of(dialogues: Iterable[Dialogue]) -> list[Example]:
    """Return every example of these dialogues, in order."""
    return [example for dialogue in dialogues for example in dialogue.examples()]


def examples_to_answer(path: str) -> list[Example]:
    """Return the contexts of a file as examples without a response.

    Raises:
        DataError: the file cannot be read, or holds no context.
    """
    contexts = enumerate(read_contexts(path))
    return [Example(f"contexts:{Path(path).stem}-{number}:{len(c)}", c, "") for number, c in contexts]


def some_examples(examples: Sequence[Example], most: int | None, seed: int) -> list[Example]:
    """Return those examples whose ids have the lowest hashes, in their order: the same in every run.

    Args:
        examples: all of a set.
        most: how many; ``None`` is all.
        seed: of the choice.
    """
    if most is None or len(examples) <= most:
        return list(examples)
    return [examples[place] for place in sorted(drawn_places(examples, most, seed))]


def drawn_places(examples: Sequence[Example], most: int, seed: int) -> list[int]:
    """Return the places of those examples whose ids have the lowest hashes, the lowest first.

    Args:
        examples: all of a set.
        most: how many.
        seed: of the choice.
    """
    lots = [hashlib.blake2b(f"{seed}:{each.id}".encode("utf-8", "surrogatepass"), digest_size=8) for each in examples]
    return sorted(range(len(examples)), key=lambda place: (lots[place].digest(), examples[place].id))[:most]


def drop_leaks(train: list[Dialogue], evaluation: Iterable[Dialogue]) -> tuple[list[Dialogue], int]:
    """Drop training dialogues that stand, but for case and punctuation, in an evaluation set.

    Returns:
        The dialogues that stay, and how many were dropped.
    """
    held_out = {dialogue_key(dialogue.turns) for dialogue in evaluation}
    kept = [dialogue for dialogue in train if dialogue_key(dialogue.turns) not in held_out]
    return kept, len(train) - len(kept)


def split_share(dialogues: list[Dialogue], share: float, salt: str) -> tuple[list[Dialogue], list[Dialogue]]:
    """Split off a share of the dialogues, chosen by a hash of their text: the same ones in every run and order.

    Returns:
        The rest, and the share.
    """
    rest: list[Dialogue] = []
    chosen: list[Dialogue] = []
    for dialogue in dialogues:
        digest = hashlib.blake2b(
            f"{salt}\n{dialogue_key(dialogue.turns)}".encode("utf-8", "surrogatepass"), digest_size=8
        )
        part = int.from_bytes(digest.digest(), "little") / 2**64
        (chosen if part < share else rest).append(dialogue)
    return rest, chosen


def read_response_file(path: str) -> list[str]:
    """Read an approved response set: one response a line, blank lines passed over.

    Raises:
        DataError: the file is missing or holds no response.
    """
    from g2r_lightning.dialogue.readers import read_responses

    responses = [text for text in read_responses(path) if text.strip()]
    if not responses:
        raise DataError(path, "the response set is empty: expected one response a line")
    return responses
