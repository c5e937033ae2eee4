"""How much memory and disk a student's training takes, before anything is loaded.

Weights, their gradients and AdamW's two moments are four float32 numbers a parameter, exactly. What the layers keep for
the backward pass is, for each token and layer of a BERT in float32, ``10 h + 4 i + 3 a s`` numbers (h the hidden size,
i the inner size of the feed-forward part, a the attention heads, s the tokens of the padded text): measured on a CPU,
within 3% of MiniLM's memory for 32 to 512 tokens a text. Texts are taken to be as long as they may be, so it is what a
step takes *at most*. Cached gradients keep one chunk of ``token_budget`` tokens alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FLOAT = 4
Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Architecture:
    """What of a backbone decides its memory.

    Args:
        parameters: of one tower.
        layers: how many.
        hidden: h.
        inner: i.
        heads: a.
    """

    parameters: int
    layers: int
    hidden: int
    inner: int
    heads: int


@dataclass(frozen=True, slots=True)
class Need:
    """What a training takes, in bytes.

    Args:
        parameters: how many are trained.
        state: weights, gradients and moments.
        activations: of one step, at most.
        checkpoint: one, on disk.
    """

    parameters: int
    state: int
    activations: int
    checkpoint: int


def architecture(folder: str) -> Architecture:
    """Return what a model's configuration tells; no weights are read.

    Args:
        folder: what transformers can load.

    Raises:
        OSError: there is no configuration.
        ValueError: transformers does not know the kind of model.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModel.from_config(config, trust_remote_code=False)
    inner = next(
        (value for name in ("intermediate_size", "ffn_dim", "n_inner") if (value := getattr(config, name, None))), None
    )
    hidden = int(config.hidden_size)
    return Architecture(
        parameters=sum(weight.numel() for weight in model.parameters()),
        layers=int(config.num_hidden_layers),
        hidden=hidden,
        inner=int(inner or 4 * hidden),
        heads=int(config.num_attention_heads),
    )


def kept_bytes(shape: Architecture, texts: int, tokens: int) -> int:
    """Return the bytes that the backward pass needs of texts of one length.

    >>> kept_bytes(Architecture(0, 6, 384, 1536, 12), texts=64, tokens=128) // 10**6
    2868

    Args:
        shape: of the tower.
        texts: how many.
        tokens: of each, padding included.
    """
    numbers = 10 * shape.hidden + 4 * shape.inner + 3 * shape.heads * tokens
    return FLOAT * shape.layers * texts * tokens * numbers


def student_need(shape: Architecture, encoder: Settings, text: Settings, data: Settings) -> Need:
    """Return what the training of a student takes.

    Args:
        shape: of its backbone.
        encoder: ``init_args`` of the encoder.
        text: of the text; ``max_context_tokens`` and ``max_response_tokens``.
        data: of the data module; ``batch_size``, ``max_candidates``, ``negatives``.
    """
    towers = 1 if encoder.get("shared", True) else 2
    parameters = towers * shape.parameters
    contexts, per_context = int(data.get("batch_size", 48)), int(data.get("max_candidates", 10))
    negatives = data.get("negatives") or {}
    responses = contexts * per_context + int(negatives.get("random", 0) or 0)
    lengths = int(text.get("max_context_tokens", 240)), int(text.get("max_response_tokens", 128))
    budget = encoder.get("token_budget", 2048)
    if encoder.get("cached_gradients") and budget is not None:
        activations = max(kept_bytes(shape, max(int(budget) // length, 1), length) for length in lengths)
    else:
        activations = kept_bytes(shape, contexts, lengths[0]) + kept_bytes(shape, responses, lengths[1])
    return Need(parameters, 4 * FLOAT * parameters, activations, 3 * FLOAT * parameters)
