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
from g2r_lightning.teacher.base import Precision, Teacher
from g2r_lightning.teacher.batching import IGNORED, mask, pad
from g2r_lightning.teacher.halves import join_halves
from g2r_lightning.teacher.prefix import Prefix
from g2r_lightning.teacher.template import EncoderDecoderTemplate, TurnTemplate
from g2r_lightning.teacher.templates import BlenderBotSmallTemplate, BlenderBotTemplate


class EncoderDecoderTeacher(Teacher):
    """An encoder-decoder, whole (``name_or_path``) or joined from two encoders to be fine-tuned.

    Args:
        name_or_path: hub name or folder of a whole model.
        encoder_name_or_path: hub name, folder or ``package:<module>`` of the encoder half; needs the other half.
        decoder_name_or_path: the same for the decoder half.
        template: how contexts and responses become tokens.
        dtype: type of the weights when generating and scoring, see :class:`Teacher`.
        revision: branch, tag or commit on the hub.
        tokens_per_forward: most padded tokens of one forward pass when scoring, see :class:`Teacher`.
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
        dtype: Precision = "auto",
        revision: str | None = None,
        tokens_per_forward: int | None = None,
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

    def read(self, contexts: Sequence[list[int]]) -> Prefix:
        """Encode contexts, and run the decoder over its start tokens: that fills the cross-attention's cache."""
        inputs = self._encoder_inputs(contexts, self.device)
        hidden = self.model.get_encoder()(**inputs).last_hidden_state
        start = torch.tensor([self._decoder_start()] * len(contexts), device=self.device)
        output = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
            attention_mask=inputs["attention_mask"],
            decoder_input_ids=start,
            use_cache=True,
        )
        return Prefix(output.past_key_values, inputs["attention_mask"], output.logits[:, -1], hidden)

    def after(self, prefix: Prefix, tokens: Tensor) -> Tensor:
        """Run the decoder over tokens of replies; the contexts' cross-attention is in the prefix."""
        assert prefix.hidden is not None
        logits: Tensor = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=prefix.hidden),
            attention_mask=prefix.mask,
            decoder_input_ids=tokens,
            past_key_values=prefix.cache,
            use_cache=True,
        ).logits
        return logits

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

    def _longest_written(self, max_tokens: int) -> int:
        return len(self._decoder_start()) + max_tokens - 1  # the last token is not read

    def _load_model(self, path: str) -> Any:
        return self._with_its_weights(AutoModelForSeq2SeqLM, path)

    def _from_pretrained(self) -> tuple[Any, Any]:
        if self.encoder_name_or_path is None or self.decoder_name_or_path is None:
            return super()._from_pretrained()
        paths = []
        for half, name in (("encoder", self.encoder_name_or_path), ("decoder", self.decoder_name_or_path)):
            setting = f"teacher.init_args.{half}_name_or_path"
            paths.append(resolve_model(name, setting))
            try:
                AutoConfig.from_pretrained(paths[-1], trust_remote_code=False)
            except (OSError, ValueError) as error:
                raise missing_model(name, setting, error) from error
        return join_halves(*paths)
