"""DailyDialog (Li et al. 2017): one dialogue a line, ``__eou__`` after each utterance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from g2r_lightning.dialogue.readers.base import DialogueReader, Skip
from g2r_lightning.dialogue.types import Dialogue

_END = "__eou__"


class DailyDialogReader(DialogueReader):
    """Read the official ``dialogues_train.txt``, ``dialogues_validation.txt`` or ``dialogues_test.txt``.

    The last utterance may lack its ``__eou__``. The companion files of acts, emotions and topics are not needed.
    """

    default_dataset: ClassVar[str] = "dailydialog"

    def parse(self) -> Iterator[tuple[int, Dialogue] | Skip]:
        """Yield one dialogue a line; blank lines are passed over."""
        for number, line in self.lines():
            if not line.strip():
                continue
            if _END not in line:
                yield Skip(number, f"no {_END}: not a line of DailyDialog")
                continue
            turns = [utterance.strip() for utterance in line.split(_END)]
            if not turns[-1]:
                turns.pop()
            yield number, Dialogue(id=f"{self.path.stem}-{number}", dataset=self.dataset, turns=tuple(turns))
