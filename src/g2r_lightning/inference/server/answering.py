"""The Responder as the server sees it: several questions at once, tokens counted, its folder watched."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from g2r_lightning.dialogue import Example
from g2r_lightning.index.folder import MANIFEST, read_manifest
from g2r_lightning.inference.responder import Reply, Responder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
    """One question.

    Args:
        context: utterances, oldest first.
        k: how many replies.
        persona: lines about the one who answers.
        rules: what else :meth:`Responder.respond_all` should heed, as it takes it; ``None`` for nothing.
        count_tokens: whether the answer should say how many tokens the student read and said.
    """

    context: tuple[str, ...]
    k: int
    persona: tuple[str, ...] = ()
    rules: Any = None
    count_tokens: bool = False

    def joins(self, other: Ask) -> bool:
        """Whether both can be answered in one pass: the search has one ``k``, and one set of rules."""
        return self.k == other.k and bool(self.rules == other.rules)


@dataclass(frozen=True, slots=True)
class Answer:
    """Replies, best first, none where the student abstains; and tokens where they were to be counted."""

    replies: list[Reply]
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Answerer:
    """Answer batches of questions.

    Args:
        responder: the student and its index.
        folder: where the index was read from; ``None`` where it was made in memory.
        name: of the model; that of the run that made the index by default.
        log_text: write contexts and replies into the log.
    """

    def __init__(
        self, responder: Responder, folder: Path | None = None, name: str | None = None, log_text: bool = False
    ) -> None:
        self.responder, self.folder, self.log_text = responder, folder, log_text
        manifest = {} if folder is None else read_manifest(folder)
        self.name = name or str(manifest.get("run") or (folder.resolve().parent.name if folder else "student"))
        self.fingerprint = f"g2r-{(manifest.get('checkpoint_sha256') or 'memory')[:12]}"
        self._seen = None if folder is None else _identity(folder)

    @property
    def responses(self) -> int:
        """How many responses the index has."""
        return len(self.responder.index)

    @property
    def reads_persona(self) -> bool:
        """Whether the student was trained with persona lines of the one who answers."""
        return self.responder.text.format.persona in ("own", "both")

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer questions that join (:meth:`Ask.joins`), in their order."""
        rules = {} if asks[0].rules is None else {"rules": asks[0].rules}
        found = self.responder.respond_all(
            [ask.context for ask in asks], asks[0].k, personas=[ask.persona for ask in asks], **rules
        )
        if self.log_text:
            for ask, replies in zip(asks, found, strict=True):
                log.info("asked %s, answered %s", json.dumps(ask.context), json.dumps([one.text for one in replies]))
        return [self._counted(ask, replies) for ask, replies in zip(asks, found, strict=True)]

    def warm_up(self) -> None:
        """Answer a few batches, so that no client waits for what is made at the first call."""
        for size in (1, 2, 1):
            self.answer([Ask(("hello there",), 1, count_tokens=True)] * size)

    def trouble(self) -> str | None:
        """Return what is wrong with the index's folder, ``None`` where nothing is.

        Answers go on from memory, where the system keeps a removed file that is mapped; a restart would fail.
        """
        if self.folder is None:
            return None
        if _identity(self.folder) is None:
            return "the folder of the index is gone or unreadable; answers come from memory until the server stops"
        return None

    def outdated(self) -> bool:
        """Whether another index has taken the place of the one that was read."""
        return self.folder is not None and _identity(self.folder) not in (None, self._seen)

    def _counted(self, ask: Ask, replies: list[Reply]) -> Answer:
        """Count tokens as the student reads them: cut to its length, special tokens included."""
        if not ask.count_tokens:
            return Answer(replies)
        text = self.responder.text
        lines = text.context_lines(Example("live:0:0", ask.context, "", persona=ask.persona))
        read = sum(map(len, text.encode_contexts([lines])))
        return Answer(replies, read, sum(map(len, text.encode_responses(one.text for one in replies))))


def _identity(folder: Path) -> tuple[int, int, int] | None:
    """Return what changes when an index is replaced: the manifest's inode, time and size."""
    try:
        found = (folder / MANIFEST).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
