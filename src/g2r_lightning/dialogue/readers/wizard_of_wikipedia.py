"""Wizard of Wikipedia (Dinan et al. 2019): the official json, one array of dialogues about a chosen topic.

The wizard reads Wikipedia while talking, the apprentice does not; either may begin (``0_Wizard``, ``1_Apprentice``).
For each of his turns the wizard checked one sentence of a passage. Topic and checked sentence become knowledge; the
retrieved passages, most of the file, are left out.
"""

from __future__ import annotations

from typing import Any, ClassVar

from g2r_lightning.dialogue.readers.json_array import JsonArrayReader
from g2r_lightning.dialogue.readers.records import MalformedError, as_list, as_object, as_text
from g2r_lightning.dialogue.readers.speakers import join_speakers
from g2r_lightning.dialogue.types import Dialogue

_NOTHING_CHECKED = "no_passages_used"


class WizardOfWikipediaReader(JsonArrayReader):
    """Read the official ``train.json``, ``valid_random_split.json``, ``test_topic_split.json`` and so on.

    ``knowledge`` is the topic. ``turn_knowledge`` of a wizard's turn is the title of the checked passage and the
    checked sentence, where there are any. The wizard picked the sentence for that very answer: shown to a model, it is
    gold knowledge, to be named where results are reported.
    """

    default_dataset: ClassVar[str] = "wizard_of_wikipedia"

    def dialogue(self, record: dict[str, Any], index: int) -> Dialogue:
        """Return the dialogue of an element of the array."""
        entries = [as_object(entry, 'every item of "dialog"') for entry in as_list(record.get("dialog"), '"dialog"')]
        turns, turn_of = join_speakers((_role(entry), as_text(entry.get("text"), '"text"')) for entry in entries)
        turn_knowledge: dict[int, tuple[str, ...]] = {}
        for turn, entry in zip(turn_of, entries, strict=True):
            if lines := _checked(entry, "checked_passage") + _checked(entry, "checked_sentence"):
                turn_knowledge[turn] = turn_knowledge.get(turn, ()) + lines
        topic = record.get("chosen_topic")
        return Dialogue(
            id=f"{self.path.stem}-{index}",
            dataset=self.dataset,
            turns=turns,
            knowledge=(as_text(topic, '"chosen_topic"'),) if topic else (),
            turn_knowledge=turn_knowledge,
        )


def _role(entry: dict[str, Any]) -> str:
    """Return ``Wizard`` or ``Apprentice`` out of ``0_Wizard``, ``1_Apprentice``."""
    speaker = as_text(entry.get("speaker"), '"speaker"')
    role = speaker.rpartition("_")[2]
    if role not in ("Wizard", "Apprentice"):
        raise MalformedError(f'"speaker" is {speaker!r}, neither a Wizard nor an Apprentice')
    return role


def _checked(entry: dict[str, Any], field: str) -> tuple[str, ...]:
    """Return what ``checked_passage`` or ``checked_sentence`` maps to; empty where nothing was checked."""
    values = as_object(entry.get(field) or {}, f'"{field}"').values()
    texts = (as_text(value, f'"{field}"') for value in values)
    return tuple(text for text in texts if text and text != _NOTHING_CHECKED)
