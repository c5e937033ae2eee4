"""How a context and a response become a teacher's tokens.

Every family of dialogue models was trained on its own rendering of turns, and a likelihood is only meaningful under
that rendering: BlenderBot puts spaces between turns, DialoGPT an end-of-text token after each, chat models the roles of
their chat template. A :class:`TurnTemplate` is one such convention, named in the configuration and in manifests.

Three rules hold for all of them. A context that is too long keeps its END. A response's tokens always end with the end
token, which is part of what is scored. Text that spells a special token (``</s>``) is read as plain text.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

from g2r_lightning.dialogue.context import ContextFormat, KnowledgeLines, PersonaLines
from g2r_lightning.dialogue.types import Example
from g2r_lightning.errors import ConfigError


def fold(text: str) -> str:
    """Return the text on one line, white space folded."""
    return " ".join(text.split())


class TurnTemplate(ABC):
    """One family's way from text to tokens; give it a tokenizer with :meth:`bind` before use.

    Args:
        history: how many of the last utterances are kept.
        persona: whose persona lines precede the utterances.
        knowledge: which knowledge lines precede them.
        lower: lower-case context and response.
        max_context_tokens: most tokens of a context, special tokens included; the END is kept.
        max_response_tokens: most tokens of a response, its end token included; the beginning is kept.
    """

    prefix: list[int]
    """Special tokens that the tokenizer puts before a text."""

    suffix: list[int]
    """Special tokens that the tokenizer puts after a text."""

    end: int
    """The token that ends a response."""

    def __init__(
        self,
        history: int = 20,
        persona: PersonaLines = "none",
        knowledge: KnowledgeLines = "none",
        lower: bool = False,
        max_context_tokens: int = 240,
        max_response_tokens: int = 128,
    ) -> None:
        for name, value in (("max_context_tokens", max_context_tokens), ("max_response_tokens", max_response_tokens)):
            if value < 4:
                raise ConfigError(f"{name}={value}: too few to hold special tokens and a word; use 4 or more")
        self.format = ContextFormat(history=history, persona=persona, knowledge=knowledge, lower=lower)
        self.max_context_tokens = max_context_tokens
        self.max_response_tokens = max_response_tokens
        self._tokenizer: Any = None

    def bind(self, tokenizer: Any) -> TurnTemplate:
        """Return this template over a tokenizer; the template itself is left as it is.

        Raises:
            ConfigError: the tokenizer lacks what the convention needs.
        """
        bound = copy.copy(self)
        bound._tokenizer = tokenizer
        bound.prefix, bound.suffix = special_ends(tokenizer)
        bound.end = bound._end_id()
        return bound

    @property
    def tokenizer(self) -> Any:
        """The bound tokenizer.

        Raises:
            RuntimeError: there is none yet.
        """
        if self._tokenizer is None:
            raise RuntimeError(
                f"{type(self).__name__} has no tokenizer yet: call bind(tokenizer) and use what it returns"
            )
        return self._tokenizer

    @abstractmethod
    def context_ids(self, example: Example) -> list[int]:
        """Return the context's tokens as the model reads them; the example's response is not looked at."""

    def empty_context_ids(self) -> list[int]:
        """Return the tokens of a context that says nothing, at least one, for the prior P(r)."""
        return [*self.prefix, *self.suffix] or [self.end]

    def response_ids(self, text: str) -> list[int]:
        """Return the response's tokens, the end token last."""
        return self._closed(self.encode(fold(self.format.response(text))))

    def text(self, tokens: list[int]) -> str:
        """Return generated tokens as text: what follows the end token dropped, special tokens dropped."""
        if self.end in tokens:
            tokens = tokens[: tokens.index(self.end)]
        return fold(
            self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=self._spaced())
        )

    def encode(self, text: str) -> list[int]:
        """Return a text's tokens without any special token."""
        return list(
            self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        )

    def describe(self) -> dict[str, str | int]:
        """Return the template's name and settings: what a manifest holds, and what :func:`template_from` reads."""
        return {
            "template": type(self).__name__,
            "history": self.format.history,
            "persona": self.format.persona,
            "knowledge": self.format.knowledge,
            "lower": self.format.lower,
            "max_context_tokens": self.max_context_tokens,
            "max_response_tokens": self.max_response_tokens,
        }

    def describe_tokenizer(self) -> dict[str, str]:
        """Return what a manifest says, beside the settings, of a convention that comes with the tokenizer."""
        return {}

    def notes_and_turns(self, example: Example) -> tuple[list[str], list[str]]:
        """Return the persona and knowledge lines, and the last utterances, each oldest first."""
        lines = self.format.lines(example)
        turns = min(self.format.history, len(example.context))
        return lines[: len(lines) - turns], lines[len(lines) - turns :]

    def _closed(self, tokens: list[int]) -> list[int]:
        """Return a response's tokens, cut where it is too long, with the one end token that it has."""
        words = [token for token in tokens if token != self.end]  # BlenderBot 90M's byte pairs can spell its end token
        return [*words[: self.max_response_tokens - 1], self.end]

    def _end_id(self) -> int:
        for token in (self.tokenizer.eos_token_id, self.tokenizer.sep_token_id):
            if token is not None:
                return int(token)
        raise ConfigError(f"{type(self.tokenizer).__name__} has neither eos_token nor sep_token to end a response")

    def _spaced(self) -> bool:
        """Whether decoding leaves spaces before punctuation that the text did not have (WordPiece and old BPEs)."""
        return bool(self.tokenizer.decode(self.encode("it's."), clean_up_tokenization_spaces=False).strip() != "it's.")

    def _whole(self, tokens: list[int]) -> list[int]:
        """Return the end of a context's tokens with the tokenizer's special tokens around it."""
        room = self.max_context_tokens - len(self.prefix) - len(self.suffix)
        return [*self.prefix, *tokens[-room:], *self.suffix] if tokens else self.empty_context_ids()


def special_ends(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens that a tokenizer puts before and after a text, found by trying it."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []


class EncoderDecoderTemplate(TurnTemplate):
    """Turns tokenised one by one, a separator token between them, the tokenizer's special tokens around the whole.

    Args:
        history: see :class:`TurnTemplate`, as the next five.
        persona: whose persona lines precede the utterances.
        knowledge: which knowledge lines precede them.
        lower: lower-case context and response.
        max_context_tokens: most tokens of a context.
        max_response_tokens: most tokens of a response.
        separator: a special token or a text between turns; by default the tokenizer's ``sep_token``, or its
            ``eos_token`` where there is none.
    """

    def __init__(
        self,
        history: int = 20,
        persona: PersonaLines = "none",
        knowledge: KnowledgeLines = "none",
        lower: bool = False,
        max_context_tokens: int = 240,
        max_response_tokens: int = 128,
        separator: str | None = None,
    ) -> None:
        super().__init__(history, persona, knowledge, lower, max_context_tokens, max_response_tokens)
        self.separator = separator

    def context_ids(self, example: Example) -> list[int]:
        """Return turns joined by the separator, within the tokenizer's special tokens."""
        between = self._separator_ids()
        tokens: list[int] = []
        for line in self.format.lines(example):
            tokens += (between if tokens else []) + self.encode(fold(line))
        return self._whole(tokens)

    def describe(self) -> dict[str, str | int]:
        """Return the settings, the separator among them."""
        settings = super().describe()
        return settings if self.separator is None else {**settings, "separator": self.separator}

    def _separator_ids(self) -> list[int]:
        separator = self.separator or self.tokenizer.sep_token or self.tokenizer.eos_token
        if separator in self.tokenizer.all_special_tokens:
            return [int(self.tokenizer.convert_tokens_to_ids(separator))]
        return self.encode(separator)
