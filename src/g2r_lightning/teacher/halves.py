"""An encoder-decoder whose two halves start from pretrained encoders.

A sentence encoder knows words and meaning, but has never predicted a next token. To make it a decoder:

1. its self-attention becomes causal, and cross-attention is added in every layer, drawn at random;
2. its own embedding table, turned around, is the output layer;
3. start, end and padding are the tokenizer's classifier, separator and padding tokens.

Measured with MiniLM over the first 140 steps: cross-attention copied from self-attention, a transform that starts at
the identity, or both, learn more slowly than plain random draws, so nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, EncoderDecoderModel
from transformers.utils import logging

from g2r_lightning.errors import ConfigError


def join_halves(encoder: str, decoder: str) -> tuple[Any, Any]:
    """Return the tokenizer of two encoders, and an ``EncoderDecoderModel`` of them that is ready to be fine-tuned.

    Args:
        encoder: hub name or folder of an encoder, such as BERT or MiniLM.
        decoder: hub name or folder of an encoder with the same vocabulary.

    Raises:
        ConfigError: the vocabularies differ, or the decoder's type cannot take cross-attention.
    """
    tokenizer = AutoTokenizer.from_pretrained(encoder, trust_remote_code=False)
    if tokenizer.get_vocab() != AutoTokenizer.from_pretrained(decoder, trust_remote_code=False).get_vocab():
        raise ConfigError(
            f"encoder_name_or_path={encoder} and decoder_name_or_path={decoder} have different vocabularies; "
            "take two models with the same tokenizer"
        )
    config = AutoConfig.from_pretrained(decoder, trust_remote_code=False)
    config.is_decoder, config.add_cross_attention = True, True
    with quiet():
        reader = AutoModel.from_pretrained(encoder, trust_remote_code=False)
        writer = AutoModelForCausalLM.from_pretrained(decoder, config=config, trust_remote_code=False)
    for name, parameter in reader.named_parameters():
        parameter.requires_grad_(not name.startswith("pooler."))  # no loss reaches the pooler
    model = EncoderDecoderModel(encoder=reader, decoder=writer)
    _set_special_tokens(model, tokenizer)
    return tokenizer, model


def _set_special_tokens(model: Any, tokenizer: Any) -> None:
    """Tell the model where replies start and end, and what pads them."""
    start = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id, settings.eos_token_id = start, end
        settings.pad_token_id = tokenizer.pad_token_id
    model.config.vocab_size = model.decoder.config.vocab_size


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' report of missing weights where they are missing on purpose."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
