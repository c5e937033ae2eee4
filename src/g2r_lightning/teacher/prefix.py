"""Read a context once, then score any number of replies after it.

A context and ten candidates, run as ten padded pairs, make a model read the context ten times. Here

1. the contexts of a batch are read once: an encoder-decoder keeps its encoder's output and every decoder layer's
   cross-attention keys and values, a decoder-only model the keys and values of the context's tokens;
2. the distribution of a reply's *first* token is already there, once a context;
3. the other tokens of all replies run after rows picked from that cache, sorted by length under a token budget, and
   only positions that predict a reply's token meet the vocabulary.

The result is the same sum of token likelihoods, up to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from g2r_lightning.errors import ConfigError


@dataclass
class Prefix:
    """Contexts that have been read, and what has been said after them.

    Args:
        cache: transformers' cache, C rows; grows by the tokens that are run after it.
        mask: (C, P) int64, 1 on the tokens that were read, 0 on padding.
        logits: (C, vocabulary) float, what the model expects as a reply's first token; not picked with the rows.
        hidden: (C, P, d) float, the encoder's output; ``None`` for decoder-only models.
    """

    cache: Any
    mask: Tensor
    logits: Tensor
    hidden: Tensor | None = None

    def pick(self, rows: Tensor) -> Prefix:
        """Return some rows, any of them several times, that grow apart from these."""
        hidden = None if self.hidden is None else self.hidden[rows]
        return Prefix(select_rows(self.cache, rows), self.mask[rows], self.logits, hidden)


def select_rows(cache: Any, rows: Tensor) -> Any:
    """Return a cache of some rows, any of them several times; the given cache is left as it is.

    Raises:
        ConfigError: the model keeps another kind of state than keys and values by row.
    """
    chosen = copy.copy(cache)
    if hasattr(cache, "cross_attention_cache"):
        chosen.self_attention_cache = select_rows(cache.self_attention_cache, rows)
        chosen.cross_attention_cache = select_rows(cache.cross_attention_cache, rows)
        chosen.is_updated = dict(cache.is_updated)
        return chosen
    if not all(hasattr(layer, "batch_select_indices") for layer in getattr(cache, "layers", [None])):
        raise ConfigError(
            f"this model keeps a {type(cache).__name__}, whose rows cannot be picked: take a teacher with attention "
            "in every layer"
        )
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(rows)
    return chosen


@contextmanager
def vocabulary_at(head: Any, positions: Tensor) -> Iterator[None]:
    """Let a model's output layer see some positions only.

    Args:
        head: the layer that gives logits, as ``get_output_embeddings()`` names it.
        positions: (B, T) bool; inside the block the layer is given (positions.sum(), d) instead of (B, T, d).
    """

    def narrowed(_module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the layer's inputs at the chosen positions alone."""
        return inputs[0][positions], *inputs[1:]

    handle = head.register_forward_pre_hook(narrowed)
    try:
        yield
    finally:
        handle.remove()


def label_log_likelihoods(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the natural-log likelihood of one label a row, normalised in float32 (float64 where the logits are).

    Args:
        logits: (N, vocabulary) of any float type.
        labels: (N,) int64.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.gather(1, labels[:, None]).squeeze(1) - torch.logsumexp(wide, dim=1)
