"""The conventions of the published families; :mod:`~g2r_lightning.teacher.template` holds what they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from g2r_lightning.dialogue.context import KnowledgeLines, PersonaLines
from g2r_lightning.dialogue.types import Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.teacher.chat_template import ChatTemplate
from g2r_lightning.teacher.template import EncoderDecoderTemplate, TurnTemplate, fold


class BlenderBotTemplate(TurnTemplate):
    """BlenderBot 400M and larger: persona lines end with a newline, turns are set apart by two spaces.

    Each turn begins with a space of its own (a word start of the byte-level BPE), so three spaces stand between turns;
    the context ends with ``</s>``. Persona lines read ``your persona: ...``. These are ParlAI's conventions (Roller et
    al. 2021); the models have 128 positions.

    Args:
        history: see :class:`TurnTemplate`, as all others.
        persona: whose persona lines precede the utterances.
        knowledge: which knowledge lines precede them.
        lower: lower-case context and response.
        max_context_tokens: most tokens of a context.
        max_response_tokens: most tokens of a response.
    """

    between_turns = "   "

    def __init__(
        self,
        history: int = 20,
        persona: PersonaLines = "none",
        knowledge: KnowledgeLines = "none",
        lower: bool = False,
        max_context_tokens: int = 128,
        max_response_tokens: int = 128,
    ) -> None:
        super().__init__(history, persona, knowledge, lower, max_context_tokens, max_response_tokens)

    def context_ids(self, example: Example) -> list[int]:
        """Return notes and turns as one text, with the tokenizer's special tokens around it."""
        notes, turns = self.notes_and_turns(
            dataclasses.replace(
                example,
                persona=tuple(f"your persona: {line}" for line in example.persona),
                partner_persona=tuple(f"partner's persona: {line}" for line in example.partner_persona),
            )
        )
        text = "\n".join([*map(fold, notes), self.between_turns.join(map(fold, turns))])
        return self._whole(self.encode(text))


class BlenderBotSmallTemplate(BlenderBotTemplate):
    """BlenderBot 90M: a newline (``__newln__``) after every line, lower case, no special tokens around the context.

    Args:
        history: see :class:`TurnTemplate`, as all others.
        persona: whose persona lines precede the utterances.
        knowledge: which knowledge lines precede them.
        lower: lower-case context and response; the tokenizer does so anyway.
        max_context_tokens: most tokens of a context; the model has 512 positions.
        max_response_tokens: most tokens of a response.
    """

    between_turns = "\n"

    def __init__(
        self,
        history: int = 20,
        persona: PersonaLines = "none",
        knowledge: KnowledgeLines = "none",
        lower: bool = True,
        max_context_tokens: int = 512,
        max_response_tokens: int = 128,
    ) -> None:
        super().__init__(history, persona, knowledge, lower, max_context_tokens, max_response_tokens)


class CausalTemplate(TurnTemplate):
    """GPT-2 and DialoGPT: every turn ends with the end-of-text token (Zhang et al. 2020).

    Args: those of :class:`TurnTemplate`.
    """

    def context_ids(self, example: Example) -> list[int]:
        """Return the turns, each with the end token after it."""
        tokens: list[int] = []
        for line in self.format.lines(example):
            tokens += [*self.encode(fold(line)), self.end]
        return self._whole(tokens)


TEMPLATES: Mapping[str, type[TurnTemplate]] = {
    kind.__name__: kind
    for kind in (EncoderDecoderTemplate, BlenderBotTemplate, BlenderBotSmallTemplate, CausalTemplate, ChatTemplate)
}


def template_from(settings: Mapping[str, str | int]) -> TurnTemplate:
    """Return the template that :meth:`TurnTemplate.describe` told of.

    Raises:
        ConfigError: it is none of this package's templates, or its settings are not theirs.
    """
    arguments: dict[str, Any] = dict(settings)
    name = arguments.pop("template", None)
    if name not in TEMPLATES:
        raise ConfigError(f"the model was saved with the template {name}: name it in teacher.init_args.template")
    try:
        return TEMPLATES[name](**arguments)
    except TypeError as error:
        raise ConfigError(
            f"the settings saved for {name} do not fit it ({error}): set teacher.init_args.template"
        ) from error
