"""What every reader shares: opening files, counting what had to be skipped, choosing the response turns.

A reader turns one published format into :class:`~g2r_lightning.dialogue.Dialogue`. A subclass writes ``parse``, which
yields dialogues and, for what cannot be used, :class:`Skip` with line and reason; nothing vanishes silently. Your own
reader is such a subclass, named in YAML by its ``class_path``.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal

from g2r_lightning.dialogue.readers.files import read_lines
from g2r_lightning.dialogue.text import half_character
from g2r_lightning.dialogue.types import Dialogue
from g2r_lightning.errors import DataError
from g2r_lightning.paths import resolve_path


@dataclasses.dataclass(frozen=True, slots=True)
class Skip:
    """Something in the file that is no usable dialogue.

    Args:
        line: one-based line where it stands (its first line where it spans several); 0 where the form has no lines.
        reason: what is wrong with it.
    """

    line: int
    reason: str


class DialogueReader(ABC):
    """Read one file of dialogues.

    Iterating yields the dialogues in the file's order and fills :attr:`skipped`. Readers can be iterated again; each
    pass opens the file anew, so memory stays flat.

    Args:
        path: the file; ``package:sample/...`` is a file of the sample inside this package.
        dataset: name of the set in example ids; the format's own name by default.
        first_target: first turn that may be a response; 1 is every utterance after the first. Blended Skill Talk's
            seed pair asks for 2.
        responders: ``both`` speakers' turns are responses, or only those of the ``second`` speaker (as ParlAI's
            published ConvAI2 and BST figures count). A reader that itself names a dialogue's response turns
            (:attr:`Dialogue.targets`) sees to this setting.
        max_dialogues: stop after so many usable dialogues; ``None`` reads all.
        strict: raise at the first thing that would be skipped.

    Raises:
        ValueError: a setting is out of its range.
    """

    default_dataset: ClassVar[str] = "dialogues"

    def __init__(
        self,
        path: str,
        dataset: str | None = None,
        first_target: int = 1,
        responders: Literal["both", "second"] = "both",
        max_dialogues: int | None = None,
        strict: bool = False,
    ) -> None:
        if first_target < 1:
            raise ValueError(f"first_target={first_target}: turn 0 has no context; use 1 or more")
        if responders not in ("both", "second"):
            raise ValueError(f"responders={responders!r}: use both or second")
        if max_dialogues is not None and max_dialogues < 0:
            raise ValueError(f"max_dialogues={max_dialogues}: use 0 or more, or null to read all")
        self.path = resolve_path(path)
        self.dataset = dataset or self.default_dataset
        self.first_target = first_target
        self.responders = responders
        self.max_dialogues = max_dialogues
        self.strict = strict
        self.skipped: list[Skip] = []

    @abstractmethod
    def parse(self) -> Iterator[tuple[int, Dialogue] | Skip]:
        """Yield ``(line, dialogue)`` for what the file holds, and a :class:`Skip` for what cannot be used.

        Subclasses need not check the dialogues themselves: too few turns, empty turns, ids used twice and text that
        cannot be written as UTF-8 are caught by the base.
        """

    def __iter__(self) -> Iterator[Dialogue]:
        """Yield the usable dialogues.

        Raises:
            DataError: the file is missing, unreadable, empty, holds no usable dialogue, or ``strict`` met a fault.
        """
        self.skipped = []
        seen: set[tuple[str, str]] = set()
        if self.max_dialogues == 0:
            return
        for item in self.parse():
            found = item if isinstance(item, Skip) else self._checked(*item, seen)
            if isinstance(found, Skip):
                if self.strict:
                    raise DataError(self.path, f"{found.reason} (strict: true stops at the first)", found.line)
                self.skipped.append(found)
                continue
            seen.add((found.dataset, found.id))
            yield found
            if len(seen) == self.max_dialogues:
                return
        if not seen:
            raise DataError(self.path, self._nothing_usable())

    def lines(self) -> Iterator[tuple[int, str]]:
        """Return the file's one-based lines without their ends, decoded as UTF-8 (a leading byte order mark dropped).

        Raises:
            DataError: the file is missing, a folder, unreadable or not UTF-8.
        """
        return read_lines(self.path)

    def text(self) -> str:
        """Return the whole file, for formats that are one document; the same errors as :meth:`lines`."""
        return "\n".join(line for _, line in self.lines())

    def _checked(self, line: int, dialogue: Dialogue, seen: set[tuple[str, str]]) -> Dialogue | Skip:
        """Apply the settings that all formats share, or say why the dialogue is not usable."""
        for turn, utterance in enumerate(dialogue.turns):
            if not utterance.strip():
                return Skip(line, f"dialogue {dialogue.id}: turn {turn} is empty")
        if len(dialogue.turns) < 2:
            return Skip(line, f"dialogue {dialogue.id}: {len(dialogue.turns)} turn(s); a response needs a context")
        for turn, candidates in dialogue.candidates.items():
            if any(not candidate.response.strip() for candidate in candidates):
                return Skip(line, f"dialogue {dialogue.id}: a candidate of turn {turn} is empty")
        if (dialogue.dataset, dialogue.id) in seen:
            return Skip(line, f"dialogue {dialogue.id}: this id was used before in the file")
        if any(half_character(text) for text in _all_texts(dialogue)):
            return Skip(
                line, f"dialogue {dialogue.id}: half of a character (an unpaired surrogate, \\ud800 to \\udfff)"
            )
        step = 1 if self.responders == "both" else 2
        targets = range(1, len(dialogue.turns), step) if dialogue.targets is None else dialogue.targets
        chosen = tuple(turn for turn in targets if turn >= self.first_target)
        if not chosen:
            return Skip(line, f"dialogue {dialogue.id}: no response at or after turn {self.first_target}")
        return dataclasses.replace(dialogue, targets=chosen)

    def _nothing_usable(self) -> str:
        if not self.skipped:
            return "the file is empty: no dialogues"
        first = self.skipped[0]
        return f"no usable dialogue among {len(self.skipped)}; the first fault is in line {first.line}: {first.reason}"


def _all_texts(dialogue: Dialogue) -> Iterator[str]:
    yield from (dialogue.dataset, dialogue.id)
    yield from dialogue.turns
    yield from dialogue.knowledge
    for lines in (*dialogue.personas, *dialogue.turn_knowledge.values(), *dialogue.choices.values()):
        yield from lines
    for candidates in dialogue.candidates.values():
        for candidate in candidates:
            yield from (candidate.response, candidate.source)
