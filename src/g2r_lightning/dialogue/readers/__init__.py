"""Readers of published dialogue formats, one file each; a reader of your own is a :class:`DialogueReader` subclass.

- :class:`JsonlReader` — the project's own form, ``{"turns": [...]}`` a line
- :class:`EmpatheticDialoguesReader` — the official csv
- :class:`DailyDialogReader` — the official text, ``__eou__`` after each utterance
- :class:`ConvAI2Reader` — ParlAI's numbered lines, with personas and candidate lists
- :class:`ParlAIReader` — ParlAI's ``text:`` / ``labels:`` fields, with G2R's scores
- :class:`BlendedSkillTalkReader`, :class:`WizardOfWikipediaReader` — the official json
- :class:`G2RReleaseReader`, :func:`write_g2r_release` — the authors' augmented dialogues;
  :func:`read_responses`, :func:`read_contexts` — their response sets and evaluation contexts
"""

from g2r_lightning.dialogue.readers.base import DialogueReader, Skip
from g2r_lightning.dialogue.readers.blended_skill_talk import BlendedSkillTalkReader
from g2r_lightning.dialogue.readers.convai2 import ConvAI2Reader
from g2r_lightning.dialogue.readers.dailydialog import DailyDialogReader
from g2r_lightning.dialogue.readers.empathetic_dialogues import EmpatheticDialoguesReader
from g2r_lightning.dialogue.readers.g2r_release import (
    G2RReleaseReader,
    read_contexts,
    read_responses,
    write_g2r_release,
)
from g2r_lightning.dialogue.readers.jsonl import JsonlReader
from g2r_lightning.dialogue.readers.parlai import ParlAIReader
from g2r_lightning.dialogue.readers.wizard_of_wikipedia import WizardOfWikipediaReader

__all__ = [
    "BlendedSkillTalkReader",
    "ConvAI2Reader",
    "DailyDialogReader",
    "DialogueReader",
    "EmpatheticDialoguesReader",
    "G2RReleaseReader",
    "JsonlReader",
    "ParlAIReader",
    "Skip",
    "WizardOfWikipediaReader",
    "read_contexts",
    "read_responses",
    "write_g2r_release",
]
