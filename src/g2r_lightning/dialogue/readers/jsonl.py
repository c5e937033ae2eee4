"""The project's own form, and the easiest one to write: one JSON object a line.

``{"turns": ["hi", "hello", ...]}`` is enough. ``id`` and ``dataset`` name the dialogue (file name and line by default);
``personas`` (two lists of lines), ``knowledge`` (lines for the whole dialogue), ``candidates`` (turn -> published
candidate list) and ``first_target`` (the first turn that may be a response) are optional.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from g2r_lightning.dialogue.readers.base import DialogueReader, Skip
from g2r_lightning.dialogue.readers.records import MalformedError, as_list, as_object, as_text, as_texts, parse_json
from g2r_lightning.dialogue.types import Dialogue


class JsonlReader(DialogueReader):
    """Read one dialogue a line, an object with ``turns`` and the optional fields named above."""

    default_dataset: ClassVar[str] = "dialogues"

    def parse(self) -> Iterator[tuple[int, Dialogue] | Skip]:
        """Yield one dialogue a line; blank lines are passed over."""
        for number, line in self.lines():
            if not line.strip():
                continue
            try:
                yield number, self._dialogue(parse_json(line), number)
            except MalformedError as error:
                yield Skip(number, str(error))

    def _dialogue(self, value: Any, number: int) -> Dialogue:
        record = as_object(value, "a dialogue")
        turns = as_texts(record.get("turns"), '"turns"')
        personas = as_list(record.get("personas") or [], '"personas"')
        if len(personas) > 2:
            raise MalformedError(f'"personas" has {len(personas)} lists; a dialogue has two speakers')
        return Dialogue(
            id=str(_given(record, "id", f"{self.path.stem}-{number}")),
            dataset=as_text(_given(record, "dataset", self.dataset), '"dataset"'),
            turns=turns,
            targets=self._targets(record.get("first_target"), len(turns)),
            personas=tuple(as_texts(lines, '"personas"') for lines in personas),
            knowledge=as_texts(record.get("knowledge") or [], '"knowledge"'),
            choices=_choices(record.get("candidates") or {}, len(turns)),
        )

    def _targets(self, first: Any, num_turns: int) -> tuple[int, ...] | None:
        """Return the response turns of a dialogue that says where they begin; ``None`` where it says nothing."""
        if first is None:
            return None
        if type(first) is not int or first < 1:
            raise MalformedError(f'"first_target" is {first!r}; it names the first response turn, 1 or more')
        return tuple(turn for turn in range(1, num_turns, 1 if self.responders == "both" else 2) if turn >= first)


def _given(record: dict[str, Any], key: str, default: str) -> Any:
    """Return a field, the default where it is missing or null."""
    value = record.get(key)
    return default if value is None else value


def _choices(value: Any, num_turns: int) -> dict[int, tuple[str, ...]]:
    """Return the candidate lists by turn; a key that is no turn of the dialogue is an error."""
    choices: dict[int, tuple[str, ...]] = {}
    for key, texts in as_object(value, '"candidates"').items():
        if not (key.isascii() and key.isdigit() and len(key) < 10 and 0 < int(key) < num_turns):
            raise MalformedError(
                f'"candidates" names turn {key!r}; a dialogue of {num_turns} turns has 1 to {num_turns - 1}'
            )
        choices[int(key)] = as_texts(texts, f'"candidates" of turn {key}')
    return choices
