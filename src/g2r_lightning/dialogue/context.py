"""Which lines of an example a model gets to see.

The same context is rendered for the student, for the teacher, and later for a live conversation; each side owns one
:class:`ContextFormat`, so that training and serving cannot drift apart. A format chooses lines; joining them into
tokens belongs to the model (its separator, its chat template), which keeps the END where a context is too long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from g2r_lightning.dialogue.types import Example

PersonaLines = Literal["none", "own", "partner", "both"]
KnowledgeLines = Literal["none", "dialogue", "turn", "both"]


@dataclass(frozen=True, slots=True)
class ContextFormat:
    """Choose the lines of a context: persona and knowledge first, then the last utterances.

    Args:
        history: how many of the last utterances are kept; at least 1 (G2R: 20, REFERENCE of the method section 5).
        persona: whose persona lines precede the utterances.
        knowledge: which knowledge lines precede them.
        lower: lower-case every line, responses included.
    """

    history: int = 20
    persona: PersonaLines = "none"
    knowledge: KnowledgeLines = "none"
    lower: bool = False

    def __post_init__(self) -> None:
        """Refuse a history that would leave no context.

        Raises:
            ValueError: ``history`` is smaller than 1.
        """
        if self.history < 1:
            raise ValueError(f"history={self.history}: at least 1 utterance of the context is needed")

    def lines(self, example: Example) -> list[str]:
        """Return the lines in the order in which the model reads them.

        Args:
            example: its response is not looked at.
        """
        lines: list[str] = []
        if self.knowledge in ("dialogue", "both"):
            lines.extend(example.knowledge)
        if self.knowledge in ("turn", "both"):
            lines.extend(example.turn_knowledge)
        if self.persona in ("partner", "both"):
            lines.extend(example.partner_persona)
        if self.persona in ("own", "both"):
            lines.extend(example.persona)
        lines.extend(example.context[-self.history :])
        return [line.lower() for line in lines] if self.lower else lines

    def response(self, text: str) -> str:
        """Return a response as the model reads it."""
        return text.lower() if self.lower else text
