"""What the data is: dialogues, examples, candidates, the lines a model sees, and readers of published formats."""

from g2r_lightning.dialogue.context import ContextFormat
from g2r_lightning.dialogue.text import dialogue_key, normalised, text_key
from g2r_lightning.dialogue.types import GENERATED, ORIGINAL, Candidate, Dialogue, Example

__all__ = [
    "GENERATED",
    "ORIGINAL",
    "Candidate",
    "ContextFormat",
    "Dialogue",
    "Example",
    "dialogue_key",
    "normalised",
    "text_key",
]
