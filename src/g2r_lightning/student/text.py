"""How texts become the student's tokens: one object, used in training, evaluation and live conversation alike.

A context's lines are tokenised one by one and joined by the separator; where the whole is too long, its END is kept,
since the last utterance is what is answered. Responses keep their beginning. A marker such as ``[SEP]`` inside a
user's text stays plain text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from g2r_lightning.dialogue import ContextFormat, Example, text_key
from g2r_lightning.dialogue.context import KnowledgeLines, PersonaLines
from g2r_lightning.errors import ConfigError
from g2r_lightning.student.backbone import SETTING, load_pretrained

LINES_AT_ONCE = 4096


class StudentText:
    """Render and tokenise contexts and responses.

    Args:
        history: how many of the last utterances are kept.
        persona: whose persona lines precede them.
        knowledge: which knowledge lines precede them.
        lower: lower-case everything.
        max_context_tokens: longest context, special tokens included; the end is kept (Kim et al. 2021: 240).
        max_response_tokens: longest response, special tokens included; the beginning is kept (Kim et al. 2021: 128).
        separator: text between two lines; ``null`` takes the tokenizer's own separator token, or a line feed.
        tokenizer: name or folder of the tokenizer; ``null`` takes the backbone's.
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
        tokenizer: str | None = None,
    ) -> None:
        if min(max_context_tokens, max_response_tokens) < 4:
            raise ValueError("text.max_context_tokens and text.max_response_tokens must be at least 4")
        self.format = ContextFormat(history=history, persona=persona, knowledge=knowledge, lower=lower)
        self.max_context_tokens = max_context_tokens
        self.max_response_tokens = max_response_tokens
        self.separator = separator
        self.tokenizer_name = tokenizer
        self._tokenizer: Any = None

    def bind(self, name_or_path: str) -> StudentText:
        """Load the tokenizer (the backbone's unless another was named) and return itself."""
        from transformers import AutoTokenizer

        setting = "model.init_args.text.init_args.tokenizer" if self.tokenizer_name else SETTING
        self._tokenizer = load_pretrained(AutoTokenizer, self.tokenizer_name or name_or_path, setting)
        if not self._tokenizer.is_fast:
            raise ConfigError(f"{self.tokenizer_name or name_or_path}: only tokenizers with a tokenizer.json are used")
        probe = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        framed = self._tokenizer("a")["input_ids"]
        start = next((i for i in range(len(framed)) if framed[i : i + len(probe)] == probe), 0)
        self._prefix, self._suffix = list(framed[:start]), list(framed[start + len(probe) :])
        self._separator_ids = self._separator_tokens()
        pad_id = self._tokenizer.pad_token_id
        self.pad_id: int = pad_id if pad_id is not None else 0
        return self

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer.

        Raises:
            RuntimeError: :meth:`bind` was not called yet.
        """
        if self._tokenizer is None:
            raise RuntimeError("StudentText has no tokenizer yet: call bind(name_or_path)")
        return self._tokenizer

    def key(self, response: str) -> str:
        """Return the identity of a response as this student reads it."""
        return text_key(self.format.response(response))

    def context_lines(self, example: Example) -> list[str]:
        """Return the lines of a context in reading order."""
        return self.format.lines(example)

    def encode_contexts(self, contexts: Iterable[list[str]]) -> Iterator[list[int]]:
        """Yield the token ids of each context, given as lines; each distinct line is tokenised once a block."""
        room = self.max_context_tokens - len(self._prefix) - len(self._suffix)
        source = iter(contexts)
        while block := list(islice(source, LINES_AT_ONCE)):
            distinct = list(dict.fromkeys(line for context in block for line in context))
            tokens = dict(zip(distinct, self._tokenise(distinct), strict=True))
            for context in block:
                joined: list[int] = []
                for line in context:
                    joined += [*self._separator_ids, *tokens[line]] if joined else tokens[line]
                yield [*self._prefix, *joined[-room:], *self._suffix]

    def encode_responses(self, responses: Iterable[str]) -> Iterator[list[int]]:
        """Yield the token ids of each response."""
        room = self.max_response_tokens - len(self._prefix) - len(self._suffix)
        source = iter(responses)
        while block := list(islice(source, LINES_AT_ONCE)):
            for tokens in self._tokenise([self.format.response(text) for text in block]):
                yield [*self._prefix, *tokens[:room], *self._suffix]

    def settings(self) -> dict[str, Any]:
        """Return the constructor arguments, for a checkpoint or an index manifest."""
        return {
            "history": self.format.history,
            "persona": self.format.persona,
            "knowledge": self.format.knowledge,
            "lower": self.format.lower,
            "max_context_tokens": self.max_context_tokens,
            "max_response_tokens": self.max_response_tokens,
            "separator": self.separator,
        }

    def fingerprint(self) -> str:
        """Return a hash of everything that decides the tokens, the tokenizer's own tables included."""
        tables = self.tokenizer.backend_tokenizer.to_str()
        described = json.dumps(self.settings(), sort_keys=True) + tables
        return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a folder."""
        self.tokenizer.save_pretrained(str(folder))

    def _tokenise(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _separator_tokens(self) -> list[int]:
        if self.separator is not None:
            return list(self._tokenizer(self.separator, add_special_tokens=False)["input_ids"])
        if self._tokenizer.sep_token_id is not None:
            return [self._tokenizer.sep_token_id]
        return list(self._tokenizer("\n", add_special_tokens=False)["input_ids"])
