"""Teachers that only decode: GPT-2, DialoGPT, Llama, Qwen and their like.

Context and reply are one sequence, padded at its end: a causal model cannot see what comes after, so padding needs no
care when scoring. Generation pads at the beginning instead, so that every row goes on where its context ends.
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
from g2r_lightning.teacher.base import Scores, Teacher
from g2r_lightning.teacher.batching import IGNORED, mask, pack, pad, token_log_likelihoods
from g2r_lightning.teacher.chat_template import ChatTemplate
from g2r_lightning.teacher.generation import frozen
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

    def log_likelihood(self, contexts: Sequence[Example] | None, candidates: Sequence[Sequence[str]]) -> Scores:
        """Score each context's candidates; see :meth:`Teacher.log_likelihood`."""
        read = self._contexts(contexts, len(candidates))
        cells = [(i, j) for i, texts in enumerate(candidates) for j in range(len(texts))]
        pairs = [(read[i], self.template.response_ids(candidates[i][j])) for i, j in cells]
        scores: Scores = [[(0.0, 0)] * len(texts) for texts in candidates]
        for chunk in pack([len(context) + len(response) for context, response in pairs], self.tokens_per_forward):
            with frozen(self.model):
                sums, counts = self._score([pairs[row] for row in chunk])
            for row, total, count in zip(chunk, sums, counts, strict=True):
                i, j = cells[row]
                scores[i][j] = (total, count)
        return scores

    def _contexts(self, contexts: Sequence[Example] | None, rows: int) -> list[list[int]]:
        if contexts is None:
            return [self.template.empty_context_ids()] * rows
        return [self.template.context_ids(example) for example in contexts]

    def _score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> tuple[list[float], list[int]]:
        """Score one (context, response) a row; only positions that predict a response token meet the vocabulary."""
        inputs = self._inputs(pairs, self.device)
        labels = inputs.pop("labels")
        first = min(len(context) for context, _ in pairs) - 1
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            keep = torch.arange(first, labels.shape[1], device=self.device)
            logits = self.model(**inputs, use_cache=False, logits_to_keep=keep).logits
        else:
            logits = self.model(**inputs, use_cache=False).logits[:, first:]
        sums, counts = token_log_likelihoods(logits, labels[:, first:])
        return sums.tolist(), counts.tolist()

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

    def _load_model(self, path: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, self.dtype), revision=self.revision)
