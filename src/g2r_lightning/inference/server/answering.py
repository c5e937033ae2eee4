"""The Responder as the server sees it: several questions at once, tokens counted, its folder watched."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.index.folder import MANIFEST, read_manifest
from g2r_lightning.index.journal import OVERLAY
from g2r_lightning.inference.responder import Reply, Responder
from g2r_lightning.inference.rules import ReplyRules
from g2r_lightning.inference.server.refusals import RefusedError

log = logging.getLogger(__name__)
Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """One question.

    Args:
        context: utterances, oldest first.
        k: how many replies.
        persona: lines about the one who answers.
        rules: what may be answered, where the request asks for other rules than the Responder's own.
        count_tokens: whether the answer should say how many tokens the student read and said.
    """

    context: tuple[str, ...]
    k: int
    persona: tuple[str, ...] = ()
    rules: ReplyRules | None = None
    count_tokens: bool = False

    def joins(self, other: Ask) -> bool:
        """Whether both can be answered in one pass: the search has one ``k``, and one set of rules."""
        return self.k == other.k and self.rules == other.rules


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
        self.fingerprint = _fingerprint(manifest)
        self._seen: Stamp | None = None
        self._behind: str | None = None

    @property
    def responses(self) -> int:
        """How many responses the index has."""
        return len(self.responder.index)

    @property
    def reads_persona(self) -> bool:
        """Whether the student was trained with persona lines of the one who answers."""
        return self.responder.text.format.persona in ("own", "both")

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer questions that join (:meth:`Ask.joins`), in their order.

        Raises:
            RefusedError: 400, their rules do not fit the index.
        """
        rules: dict[str, Any] = {} if asks[0].rules is None else {"rules": asks[0].rules}
        try:
            found = self.responder.respond_all(
                [ask.context for ask in asks], asks[0].k, personas=[ask.persona for ask in asks], **rules
            )
        except (ConfigError, ValueError) as error:
            if not rules:
                raise
            raise RefusedError(400, str(error), "invalid_rule", "rules") from error
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
        if _stamp(self.folder) is None:
            return "the folder of the index is gone or unreadable; answers come from memory until the server stops"
        return None

    @property
    def behind(self) -> str | None:
        """Why the index as it lies on disk now cannot be taken up; ``None`` where it was, or nothing was changed."""
        return self._behind

    def refresh(self) -> bool:
        """Take up what was added to the index, removed, folded in or built anew; next to nothing where nothing was.

        Calls that have begun go on with what they began with.

        Returns:
            Whether answers are other ones from now on.

        Raises:
            Exception: what the folder holds cannot be read, or the server's own rules no longer fit; answers go on from
                what was read before, and :attr:`behind` says why.
        """
        stamp = None if self.folder is None else _stamp(self.folder)
        if self.folder is None or stamp in (None, self._seen):
            return False
        try:
            changed = self.responder.reload()
            self.fingerprint = _fingerprint(read_manifest(self.folder))
        except Exception as error:
            self._behind = str(error) or type(error).__name__
            raise
        self._seen, self._behind = stamp, None
        return changed

    def _counted(self, ask: Ask, replies: list[Reply]) -> Answer:
        """Count tokens as the student reads them: cut to its length, special tokens included."""
        if not ask.count_tokens:
            return Answer(replies)
        text = self.responder.text
        lines = text.context_lines(Example("live:0:0", ask.context, "", persona=ask.persona))
        read = sum(map(len, text.encode_contexts([lines])))
        return Answer(replies, read, sum(map(len, text.encode_responses(one.text for one in replies))))


def _stamp(folder: Path) -> Stamp | None:
    """Return what changes when an index or its changes are replaced; ``None`` where there is no index.

    Inode, time and size of the manifest, and inode and time of the folder of changes: two questions to the system.
    """
    try:
        found = (folder / MANIFEST).stat()
    except OSError:
        return None
    try:
        changes = (folder / OVERLAY).stat()
    except OSError:
        return found.st_ino, found.st_mtime_ns, found.st_size
    return found.st_ino, found.st_mtime_ns, found.st_size, changes.st_ino, changes.st_mtime_ns


def _fingerprint(manifest: Mapping[str, Any]) -> str:
    return f"g2r-{(manifest.get('checkpoint_sha256') or 'memory')[:12]}"
