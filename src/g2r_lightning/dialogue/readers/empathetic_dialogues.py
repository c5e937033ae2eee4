"""EmpatheticDialogues (Rashkin et al. 2019): one utterance a row, commas written as ``_comma_``.

The file looks like CSV and is not: quotation marks stand unpaired in the text, so that a CSV parser swallows rows.
A row is split at its commas into ``conv_id, utterance_idx, context, prompt, speaker_idx, utterance, selfeval, tags``
and, in the validation and test files, a ninth column: the published candidates, separated by ``|`` (``_pipe_``).
``context`` is the emotion word, ``prompt`` the situation that the first speaker was asked to describe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import ClassVar, Literal

from g2r_lightning.dialogue.readers.base import DialogueReader, Skip
from g2r_lightning.dialogue.readers.records import MalformedError
from g2r_lightning.dialogue.readers.speakers import join_speakers
from g2r_lightning.dialogue.types import Dialogue

_NUM_COLUMNS = (8, 9)


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    conversation: str
    order: int
    emotion: str
    situation: str
    speaker: str
    utterance: str
    choices: tuple[str, ...]


class EmpatheticDialoguesReader(DialogueReader):
    """Read the official ``train.csv``, ``valid.csv`` or ``test.csv``.

    Rows of one ``conv_id`` stand together and are put in the order of ``utterance_idx``; consecutive rows of one
    speaker become one turn. A conversation with a faulty row is skipped whole: its contexts would have a hole.

    Args:
        path: the file.
        dataset: name of the set in example ids.
        first_target: first turn that may be a response.
        responders: ``both`` speakers' turns are responses, or only those of the ``second``, the listener.
        max_dialogues: stop after so many usable dialogues; ``None`` reads all.
        strict: raise at the first thing that would be skipped.
        situation: keep the situation as a knowledge line. The listener did not see it.
        emotion: keep the emotion word as a knowledge line. The listener did not see it.
    """

    default_dataset: ClassVar[str] = "empathetic_dialogues"

    def __init__(
        self,
        path: str,
        dataset: str | None = None,
        first_target: int = 1,
        responders: Literal["both", "second"] = "both",
        max_dialogues: int | None = None,
        strict: bool = False,
        situation: bool = False,
        emotion: bool = False,
    ) -> None:
        super().__init__(path, dataset, first_target, responders, max_dialogues, strict)
        self.situation = situation
        self.emotion = emotion

    def parse(self) -> Iterator[tuple[int, Dialogue] | Skip]:
        """Yield one dialogue a ``conv_id``; the header is passed over."""
        for _, group in groupby(self._fields(), key=lambda row: row[1][0]):
            rows = list(group)
            try:
                yield rows[0][0], self._dialogue([_row(line, fields) for line, fields in rows])
            except MalformedError as fault:
                yield Skip(fault.line or rows[0][0], f"conversation {rows[0][1][0][:40]}: {fault}")

    def _fields(self) -> Iterator[tuple[int, list[str]]]:
        for number, line in self.lines():
            fields = line.split(",")
            if line.strip() and not (number == 1 and fields[0] == "conv_id"):
                yield number, fields

    def _dialogue(self, rows: list[_Row]) -> Dialogue:
        rows = sorted(rows, key=lambda row: row.order)
        for before, after in pairwise(rows):
            if before.order == after.order:
                raise MalformedError(f"utterance_idx {after.order} occurs twice", after.line)
        turns, turn_of = join_speakers((row.speaker, row.utterance) for row in rows)
        knowledge = [rows[0].emotion] * self.emotion + [rows[0].situation] * self.situation
        return Dialogue(
            id=rows[0].conversation,
            dataset=self.dataset,
            turns=turns,
            knowledge=tuple(line for line in knowledge if line),
            choices={turn: row.choices for turn, row in zip(turn_of, rows, strict=True) if row.choices},
        )


def _row(line: int, fields: list[str]) -> _Row:
    if len(fields) not in _NUM_COLUMNS:
        raise MalformedError(f"{len(fields)} comma-separated columns where 8 or 9 are expected", line)
    if not (fields[1].isascii() and fields[1].isdigit() and len(fields[1]) < 10):
        raise MalformedError(f"utterance_idx {fields[1]!r} is not a number", line)
    candidates = fields[8].split("|") if len(fields) == 9 and fields[8] else []
    return _Row(
        line=line,
        conversation=fields[0],
        order=int(fields[1]),
        emotion=_text(fields[2]),
        situation=_text(fields[3]),
        speaker=fields[4],
        utterance=_text(fields[5]),
        choices=tuple(_text(candidate) for candidate in candidates),
    )


def _text(field: str) -> str:
    return field.replace("_comma_", ",").replace("_pipe_", "|").strip()
