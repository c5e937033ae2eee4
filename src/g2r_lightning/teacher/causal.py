"""Teachers that only decode: GPT-2, DialoGPT, Llama, Qwen and their like.

Context and reply are one sequence. In training it is padded at its end: a causal model cannot see what comes after.
Where a context is read once for several replies, it is padded at its beginning, so that every row goes on where its
context ends; the attention mask and the positions pass over the padding.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from g2r_lightning.dialogue.types import Example
from g2r_lightning.hub import position_limit
from g2r_lightning.teacher.base import Teacher
from g2r_lightning.teacher.batching import IGNORED, mask, pad
from g2r_lightning.teacher.chat_template import ChatTemplate
from g2r_lightning.teacher.prefix import Prefix
from g2r_lightning.teacher.template import TurnTemplate
from g2r_lightning.teacher.templates import CausalTemplate


class CausalTeacher(Teacher):
    """A decoder-only model, by hub name or folder.

    Its template is :class:`ChatTemplate` where the tokenizer brings a chat template, else :class:`CausalTemplate`.
    """

    def default_template(self) -> TurnTemplate:
        """Return the chat template's convention where there is one, else end tokens between turns."""
        limit = position_limit(self.model.config) or 10**6
        kind = ChatTemplate if getattr(self.tokenizer, "chat_template", None) else CausalTemplate
        response = min(128, limit // 4)
        return kind(max_context_tokens=min(1024, limit - response), max_response_tokens=response)

    def batch(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return ``input_ids, attention_mask, labels (B, T)``; context positions predict nothing."""
        pairs = [
            (self.template.context_ids(example), self.template.response_ids(example.response)) for example in examples
        ]
        return self._inputs(pairs, "cpu")

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        """Return ``(B, T, vocabulary)``."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        logits: Tensor = self.model(**inputs, use_cache=False).logits
        return logits

    def read(self, contexts: Sequence[list[int]]) -> Prefix:
        """Run the contexts' tokens, padded at the beginning, and keep their keys and values."""
        inputs, _ = self._prompt(contexts)
        output = self.model(**inputs, **self._positions(inputs["attention_mask"]), **self._keep_last(), use_cache=True)
        return Prefix(output.past_key_values, inputs["attention_mask"], output.logits[:, -1])

    def after(self, prefix: Prefix, tokens: Tensor) -> Tensor:
        """Run tokens of replies after the contexts' keys and values."""
        prefix.mask = torch.cat([prefix.mask, torch.ones_like(tokens)], dim=1)
        positions = {name: value[:, -tokens.shape[1] :] for name, value in self._positions(prefix.mask).items()}
        logits: Tensor = self.model(
            input_ids=tokens,
            attention_mask=prefix.mask,
            past_key_values=prefix.cache,
            use_cache=True,
            **positions,
        ).logits
        return logits

    def _positions(self, seen: Tensor) -> dict[str, Tensor]:
        """Return positions that count tokens and pass over padding, for models that are told them."""
        if "position_ids" not in inspect.signature(self.model.forward).parameters:
            return {}
        return {"position_ids": (seen.cumsum(dim=1) - 1).clamp_min(0)}

    def _keep_last(self) -> dict[str, int]:
        """Ask for the logits of the last position alone, where a model can be asked."""
        return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(self.model.forward).parameters else {}

    def _inputs(self, pairs: Sequence[tuple[list[int], list[int]]], device: torch.device | str) -> dict[str, Tensor]:
        read = [[*context, *response][:-1] for context, response in pairs]
        labels = [[IGNORED] * (len(context) - 1) + response for context, response in pairs]
        return {
            "input_ids": pad(read, self.tokenizer.pad_token_id, device),
            "attention_mask": mask(read, device),
            "labels": pad(labels, IGNORED, device),
        }

    def _prompt(self, contexts: Sequence[Sequence[int]]) -> tuple[dict[str, Tensor], int]:
        longest = max(map(len, contexts))
        blank = self.tokenizer.pad_token_id
        tokens = [[blank] * (longest - len(row)) + list(row) for row in contexts]
        seen = [[0] * (longest - len(row)) + [1] * len(row) for row in contexts]
        inputs = {
            "input_ids": torch.tensor(tokens, device=self.device),
            "attention_mask": torch.tensor(seen, device=self.device),
        }
        return inputs, longest

    def _longest(self) -> int:
        return self.template.max_context_tokens + self.template.max_response_tokens - 1

    def _longest_written(self, max_tokens: int) -> int:
        return self.template.max_context_tokens + max_tokens - 1  # the last token is not read

    def _load_model(self, path: str) -> Any:
        return self._with_its_weights(AutoModelForCausalLM, path)
