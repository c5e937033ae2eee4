"""Teachers that read the context in an encoder: BlenderBot, BART, T5, or two halves that were encoders.

The context is encoded once, however many candidates are scored after it: each decoder row picks the encoder output of
its context by index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSeq2SeqLM
from transformers.modeling_outputs import BaseModelOutput

from g2r_lightning.dialogue.types import Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.hub import missing_model, position_limit, resolve_model
from g2r_lightning.teacher.base import Precision, Scores, Teacher
from g2r_lightning.teacher.batching import IGNORED, mask, pack, pad, token_log_likelihoods
from g2r_lightning.teacher.generation import frozen
from g2r_lightning.teacher.halves import join_halves
from g2r_lightning.teacher.template import EncoderDecoderTemplate, TurnTemplate
from g2r_lightning.teacher.templates import BlenderBotSmallTemplate, BlenderBotTemplate


class EncoderDecoderTeacher(Teacher):
    """An encoder-decoder, whole (``name_or_path``) or joined from two encoders to be fine-tuned.

    Args:
        name_or_path: hub name or folder of a whole model.
        encoder_name_or_path: hub name, folder or ``package:<module>`` of the encoder half; needs the other half.
        decoder_name_or_path: the same for the decoder half.
        template: how contexts and responses become tokens.
        dtype: type of the weights when generating and scoring.
        revision: branch, tag or commit on the hub.
        tokens_per_forward: most padded tokens of one forward pass when scoring.
        rows_per_batch: most replies decoded together when generating.

    Raises:
        ConfigError: neither or both of the two ways to name a model are used.
    """

    def __init__(
        self,
        name_or_path: str | None = None,
        encoder_name_or_path: str | None = None,
        decoder_name_or_path: str | None = None,
        template: TurnTemplate | None = None,
        dtype: Precision = "float32",
        revision: str | None = None,
        tokens_per_forward: int = 4096,
        rows_per_batch: int = 128,
    ) -> None:
        halves = [name for name in (encoder_name_or_path, decoder_name_or_path) if name is not None]
        if len(halves) != (2 if name_or_path is None else 0):
            raise ConfigError(
                "teacher.init_args: give name_or_path (a whole model), or encoder_name_or_path and decoder_name_or_path"
            )
        name = name_or_path if name_or_path is not None else "+".join(halves)
        super().__init__(name, template, dtype, revision, tokens_per_forward, rows_per_batch)
        self.encoder_name_or_path = encoder_name_or_path
        self.decoder_name_or_path = decoder_name_or_path

    def default_template(self) -> TurnTemplate:
        """Return BlenderBot's convention for a BlenderBot, and separator tokens for all others."""
        limit = position_limit(self.model.config) or 10**6
        published = {"blenderbot": BlenderBotTemplate, "blenderbot-small": BlenderBotSmallTemplate}
        kind = published.get(self.model.config.model_type, EncoderDecoderTemplate)
        standard = kind()
        return kind(
            max_context_tokens=min(standard.max_context_tokens, limit),
            max_response_tokens=min(standard.max_response_tokens, limit),
        )

    def batch(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return ``input_ids, attention_mask (B, S)``, ``decoder_input_ids, labels (B, T)``."""
        contexts = [self.template.context_ids(example) for example in examples]
        responses = [self.template.response_ids(example.response) for example in examples]
        return {**self._encoder_inputs(contexts, "cpu"), **self._decoder_inputs(responses, "cpu")}

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        """Return ``(B, T, vocabulary)``."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        logits: Tensor = self.model(**inputs, use_cache=False).logits
        return logits

    def log_likelihood(self, contexts: Sequence[Example] | None, candidates: Sequence[Sequence[str]]) -> Scores:
        """Score each context's candidates; see :meth:`Teacher.log_likelihood`."""
        tokens = [[self.template.response_ids(text) for text in texts] for texts in candidates]
        cells = [[(i, j) for j in range(len(texts))] for i, texts in enumerate(candidates)]
        if contexts is None:
            read, cells = [self.template.empty_context_ids()], [[cell for row in cells for cell in row]]
        else:
            read = [self.template.context_ids(example) for example in contexts]
        scores: Scores = [[(0.0, 0)] * len(texts) for texts in candidates]
        with frozen(self.model):
            for group in pack([len(row) for row in read], self.tokens_per_forward):
                inside = [(place, i, j) for place, number in enumerate(group) for i, j in cells[number]]
                inputs = self._encoder_inputs([read[number] for number in group], self.device)
                encoded = self.model.get_encoder()(**inputs).last_hidden_state, inputs["attention_mask"]
                places, replies = [row[0] for row in inside], [tokens[i][j] for _, i, j in inside]
                for (_, i, j), score in zip(inside, self._score(*encoded, places, replies), strict=True):
                    scores[i][j] = score
        return scores

    def _score(
        self, hidden: Tensor, attention_mask: Tensor, places: Sequence[int], replies: Sequence[list[int]]
    ) -> list[tuple[float, int]]:
        """Score replies to contexts that have been encoded.

        Args:
            hidden: (C, S, d) float - the encoder's output for C contexts.
            attention_mask: (C, S) int64 - 1 on the tokens of the contexts.
            places: (R,) - which of the contexts each reply answers.
            replies: R rows of tokens.
        """
        scores = [(0.0, 0)] * len(replies)
        for chunk in pack([len(reply) + hidden.shape[1] for reply in replies], self.tokens_per_forward):
            index = torch.tensor([places[row] for row in chunk], device=hidden.device)
            inputs: dict[str, Any] = self._decoder_inputs([replies[row] for row in chunk], self.device)
            labels = inputs.pop("labels")
            encoded = BaseModelOutput(last_hidden_state=hidden[index])
            output = self.model(
                encoder_outputs=encoded, attention_mask=attention_mask[index], use_cache=False, **inputs
            )
            sums, counts = token_log_likelihoods(output.logits, labels)
            for row, total, count in zip(chunk, sums.tolist(), counts.tolist(), strict=True):
                scores[row] = (total, count)
        return scores

    def _encoder_inputs(self, contexts: Sequence[Sequence[int]], device: torch.device | str) -> dict[str, Tensor]:
        tokens = pad(contexts, self.tokenizer.pad_token_id, device)
        return {"input_ids": tokens, "attention_mask": mask(contexts, device)}

    def _decoder_inputs(self, responses: Sequence[list[int]], device: torch.device | str) -> dict[str, Tensor]:
        """Return what the decoder reads and what it is to predict, padded at the end.

        The decoder is causal, so what stands after a response's end cannot reach it and needs no mask.
        """
        start = self._decoder_start()
        read = [[*start, *tokens[:-1]] for tokens in responses]
        labels = [[IGNORED] * (len(start) - 1) + tokens for tokens in responses]
        return {
            "decoder_input_ids": pad(read, self.tokenizer.pad_token_id, device),
            "labels": pad(labels, IGNORED, device),
        }

    def _decoder_start(self) -> list[int]:
        """Return what the decoder is given before the first token of a reply, none of it scored.

        That is the model's start token, and the token that its training put before every target: the one that is forced
        in generation, or the one that the tokenizer puts in front (BART: ``</s><s>``).
        """
        start, forced = self._start_id(), self.model.generation_config.forced_bos_token_id
        return [
            start,
            *(token for token in ([forced] if forced is not None else self.template.prefix) if token != start),
        ]

    def _start_id(self) -> int:
        for settings in (self.model.generation_config, self.model.config):
            start = getattr(settings, "decoder_start_token_id", None)
            if start is not None:
                return int(start)
        raise ConfigError(f"{self.name_or_path} has no decoder_start_token_id: set it in its config.json")

    def _prompt(self, contexts: Sequence[Sequence[int]]) -> tuple[dict[str, Tensor], int]:
        start = torch.tensor([self._decoder_start()] * len(contexts), device=self.device)
        return {**self._encoder_inputs(contexts, self.device), "decoder_input_ids": start}, start.shape[1]

    def _longest(self) -> int:
        return max(self.template.max_context_tokens, self.template.max_response_tokens)

    def _load_model(self, path: str) -> Any:
        return AutoModelForSeq2SeqLM.from_pretrained(path, dtype=getattr(torch, self.dtype), revision=self.revision)

    def _from_pretrained(self) -> tuple[Any, Any]:
        if self.encoder_name_or_path is None or self.decoder_name_or_path is None:
            return super()._from_pretrained()
        paths = []
        for half, name in (("encoder", self.encoder_name_or_path), ("decoder", self.decoder_name_or_path)):
            setting = f"teacher.init_args.{half}_name_or_path"
            paths.append(resolve_model(name, setting))
            try:
                AutoConfig.from_pretrained(paths[-1])
            except (OSError, ValueError) as error:
                raise missing_model(name, setting, error) from error
        return join_halves(*paths)
