"""BlendedSkillTalk (Smith et al. 2020): the official json, one array of dialogues.

Each conversation was seeded with two utterances from another set (``free_turker_utterance``,
``guided_turker_utterance``): they are context, never a target, hence ``first_target`` 2. The free worker is the first
speaker, the guided one the second; ``personas`` are theirs in that order. The published ``label_candidates`` of
validation and test hold one list a guided utterance of ``dialog``.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from g2r_lightning.dialogue.readers.json_array import JsonArrayReader
from g2r_lightning.dialogue.readers.records import MalformedError, as_list, as_text, as_texts
from g2r_lightning.dialogue.readers.speakers import join_speakers
from g2r_lightning.dialogue.types import Dialogue

_TOPIC_SOURCE = "wizard_of_wikipedia"  # where the seed comes from; the additional context is then the topic


class BlendedSkillTalkReader(JsonArrayReader):
    """Read the official ``train.json``, ``valid.json`` or ``test.json``.

    Args:
        path: the file.
        dataset: name of the set in example ids.
        first_target: first turn that may be a response; 2 leaves the seed pair out.
        responders: ``both`` workers' turns are responses, or only those of the ``second``, the guided one
            (ParlAI's 5,482 test examples).
        max_dialogues: stop after so many usable dialogues; ``None`` reads all.
        strict: raise at the first thing that would be skipped.
        situation: where the seed comes from EmpatheticDialogues, keep its situation as a knowledge line, as the
            topic is kept where the seed comes from Wizard of Wikipedia. ParlAI shows the topic only.
    """

    default_dataset: ClassVar[str] = "blended_skill_talk"

    def __init__(
        self,
        path: str,
        dataset: str | None = None,
        first_target: int = 2,
        responders: Literal["both", "second"] = "both",
        max_dialogues: int | None = None,
        strict: bool = False,
        situation: bool = False,
    ) -> None:
        super().__init__(path, dataset, first_target, responders, max_dialogues, strict)
        self.situation = situation

    def dialogue(self, record: dict[str, Any], index: int) -> Dialogue:
        """Return the dialogue of an element of the array."""
        seed = [("0", _field(record, "free_turker_utterance")), ("1", _field(record, "guided_turker_utterance"))]
        spoken = [_utterance(entry) for entry in as_list(record.get("dialog"), '"dialog"')]
        turns, turn_of = join_speakers(seed + spoken)
        guided = [turn for turn, (speaker, _) in zip(turn_of[2:], spoken, strict=True) if speaker == "1"]
        personas = as_list(record.get("personas") or [], '"personas"')
        if len(personas) > 2:
            raise MalformedError(f'"personas" has {len(personas)} lists; a dialogue has two speakers')
        return Dialogue(
            id=f"{self.path.stem}-{index}",
            dataset=self.dataset,
            turns=turns,
            personas=tuple(as_texts(lines, '"personas"') for lines in personas),
            knowledge=self._knowledge(record),
            choices=_choices(record.get("label_candidates"), guided),
        )

    def _knowledge(self, record: dict[str, Any]) -> tuple[str, ...]:
        wanted = self.situation or record.get("context_dataset") == _TOPIC_SOURCE
        context = record.get("additional_context")
        return (as_text(context, '"additional_context"'),) if wanted and context else ()


def _field(record: dict[str, Any], name: str) -> str:
    return as_text(record.get(name), f'"{name}"')


def _utterance(entry: Any) -> tuple[str, str]:
    """Return speaker and text of ``[speaker, text]``."""
    pair = as_list(entry, 'every item of "dialog"')
    if len(pair) != 2 or pair[0] not in (0, 1):
        raise MalformedError('every item of "dialog" must be [speaker, text], the speaker 0 or 1')
    return str(int(pair[0])), as_text(pair[1], 'the text in "dialog"')


def _choices(value: Any, guided: list[int]) -> dict[int, tuple[str, ...]]:
    """Return the published candidate lists, which are in the order of the guided worker's turns."""
    if value is None:
        return {}
    lists = as_list(value, '"label_candidates"')
    if len(lists) != len(guided):
        raise MalformedError(f'"label_candidates" has {len(lists)} lists for {len(guided)} guided utterances')
    return {turn: as_texts(texts, '"label_candidates"') for turn, texts in zip(guided, lists, strict=True)}
