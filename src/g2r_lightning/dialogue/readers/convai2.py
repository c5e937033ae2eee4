"""ConvAI2, PersonaChat and whatever else is in ParlAI's numbered lines (the "FB dialog" format).

``N your persona: ...`` and ``N partner's persona: ...`` come first, then one exchange a line:
``N text<TAB>reply<TAB>reward<TAB>candidate|candidate|...``, of which all after the text is optional. A number that does
not grow begins a new dialogue. *Your* persona is that of the one who replies, the second speaker as a rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from g2r_lightning.dialogue.readers.base import DialogueReader, Skip
from g2r_lightning.dialogue.readers.parlai_episode import Message, episode_dialogue
from g2r_lightning.dialogue.readers.records import MalformedError
from g2r_lightning.dialogue.types import Dialogue

_MOST_FIELDS = 4


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the file; ``order`` is its own number, ``None`` where it has none."""

    at: int
    order: int | None
    body: str


class ConvAI2Reader(DialogueReader):
    """Read the official ``train_self_original.txt``, ``valid_both_revised.txt`` and so on.

    ``responders: second`` counts the replies alone, as published figures do (7,801 in ConvAI2's validation set). A
    dialogue with a faulty line is skipped whole: its contexts would have a hole.
    """

    default_dataset: ClassVar[str] = "convai2"

    def parse(self) -> Iterator[tuple[int, Dialogue] | Skip]:
        """Yield one dialogue a run of growing numbers; blank lines are passed over."""
        for group in self._groups():
            messages: list[Message] = []
            try:
                for line in group:
                    at = line.at
                    messages.append(_message(line))
            except MalformedError as error:
                yield Skip(at, f"{error}; the dialogue of lines {group[0].at} to {group[-1].at} is left out")
                continue
            name = f"{self.path.stem}-{group[0].at}"
            yield group[0].at, episode_dialogue(name, self.dataset, messages, self.responders)

    def _groups(self) -> Iterator[list[_Line]]:
        """Yield the lines of one dialogue at a time; a line without a number belongs to the dialogue it stands in."""
        group: list[_Line] = []
        last: int | None = None
        for at, text in self.lines():
            if not text.strip():
                continue
            order, body = _number(text)
            if order is not None:
                if group and (last is None or order <= last):
                    yield group
                    group = []
                last = order
            group.append(_Line(at, order, body))
        if group:
            yield group


def _number(text: str) -> tuple[int | None, str]:
    """Split a line into its number and the rest."""
    number, _, body = text.partition(" ")
    number = number.strip()
    is_number = number.isascii() and number.isdigit() and len(number) < 10
    return (int(number), body) if is_number else (None, text)


def _message(line: _Line) -> Message:
    if line.order is None:
        raise MalformedError("the line does not begin with its number and a space")
    fields = [field.strip() for field in line.body.replace("\\n", "\n").split("\t")]
    if len(fields) > _MOST_FIELDS:
        raise MalformedError(
            f"{len(fields)} tab-separated fields; text, reply, reward and candidates are {_MOST_FIELDS}"
        )
    candidates = fields[3].split("|") if len(fields) == _MOST_FIELDS and fields[3] else []
    return Message(
        text=fields[0],
        labels=tuple(fields[1].split("|")) if len(fields) > 1 else (),
        choices=tuple(map(str.strip, candidates)),
    )
