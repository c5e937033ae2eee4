"""Generation in transformers' terms: what :class:`~g2r_lightning.teacher.sampling.Sampling` says, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from g2r_lightning.teacher.sampling import Sampling


def generation_config(sampling: Sampling, tokenizer: Any, start: int | None, ends: list[int]) -> Any:
    """Return the settings as transformers wants them, every one of them stated.

    Args:
        sampling: how replies are drawn.
        tokenizer: tells the padding token.
        start: the token from which a decoder of its own starts; ``None`` for decoder-only models.
        ends: the tokens at which a reply ends.
    """
    beams = sampling.method == "beam"
    choice = (
        {"num_beams": sampling.num_beams, "length_penalty": sampling.length_penalty, "early_stopping": True}
        if beams
        else {
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "typical_p": sampling.typical_p,
        }
    )
    return GenerationConfig(
        do_sample=not beams,
        num_return_sequences=sampling.num_replies,
        min_new_tokens=sampling.min_tokens,
        max_new_tokens=sampling.max_tokens,
        no_repeat_ngram_size=sampling.no_repeat_ngram,
        encoder_no_repeat_ngram_size=sampling.no_context_ngram,
        decoder_start_token_id=start,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        use_cache=True,
        **choice,
    )


@contextmanager
def no_generation_defaults(model: Any) -> Iterator[None]:
    """Set aside the decoding defaults published with a model, which would fill whatever a call leaves open."""
    published = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = published


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Switch dropout and gradients off, and dropout on again if it was: one may ask in the midst of training.

    Not ``inference_mode``: weights loaded inside it could never be trained.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
