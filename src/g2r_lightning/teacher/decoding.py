"""Draw replies token by token, so that a reply depends on its context, its number and the seed, and on nothing else.

1. Contexts are read once (:mod:`~g2r_lightning.teacher.prefix`); all replies to a context go on from what was kept.
2. Every (seed, example, reply) has a stream of uniform numbers of its own, one a step. The token of a step is the one
   in whose share of the distribution the step's number falls, tokens standing in the order of the vocabulary: a
   rounding error moves a share's border by its own size and hardly ever changes the token.
3. Rows that have ended leave the batch, so a long reply does not make the short ones run on.

So a restart, another rank or another worker draws the same replies; another batch size does too, up to rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from g2r_lightning.teacher.prefix import Prefix
from g2r_lightning.teacher.sampling import Sampling

NUCLEUS = (256, 2048)  # how many tokens are looked at for top_p; rows whose nucleus is wider look at all
COMPACT = 0.1  # share of ended rows that is worth copying the cache of the others


class Reads(Protocol):
    """What decoding needs of a model."""

    def read(self, contexts: Sequence[list[int]]) -> Prefix:
        """Run the tokens of contexts once."""

    def after(self, prefix: Prefix, tokens: Tensor) -> Tensor:
        """Return (R, T, vocabulary) logits of (R, T) tokens after the R rows of a prefix, which grows by them."""


def uniforms(seed: int, names: Sequence[str], num_replies: int, steps: int) -> Tensor:
    """Return (len(names) * num_replies, steps) float64 in [0, 1), the rows of one example one after the other.

    Args:
        seed: of the run.
        names: ids of the examples.
        num_replies: rows of each.
        steps: columns.
    """
    rows = [
        np.random.Generator(np.random.Philox(key=_key(seed, name, reply))).random(steps)
        for name in names
        for reply in range(num_replies)
    ]
    return torch.from_numpy(np.stack(rows))


def _key(seed: int, name: str, reply: int) -> int:
    digest = hashlib.blake2b(f"{seed}\x1f{name}\x1f{reply}".encode("utf-8", "surrogatepass"), digest_size=16)
    return int.from_bytes(digest.digest(), "little")


@torch.no_grad()
def sample_replies(
    model: Reads, contexts: Sequence[list[int]], sampling: Sampling, numbers: Tensor, ends: Sequence[int]
) -> list[list[int]]:
    """Draw ``sampling.num_replies`` replies to each context.

    Args:
        model: reads and goes on.
        contexts: C rows of tokens.
        sampling: how tokens are drawn.
        numbers: (C * num_replies, at least max_tokens) float64 in [0, 1), see :func:`uniforms`.
        ends: tokens that end a reply.

    Returns:
        C * num_replies rows of tokens, the end token included where the reply has ended.
    """
    prefix = model.read(contexts)
    rows = torch.arange(len(contexts), device=prefix.mask.device).repeat_interleave(sampling.num_replies)
    logits, state = prefix.logits[rows], prefix.pick(rows)
    blocked = [BlockedNGrams(sampling, contexts[row]) for row in rows.tolist()]
    replies: list[list[int]] = [[] for _ in blocked]
    batch = list(range(len(replies)))  # which reply each row of the batch is
    alive, ending = set(batch), torch.tensor(list(ends), device=logits.device)
    for step in range(sampling.max_tokens):
        if step < sampling.min_tokens:
            logits[:, ending] = -torch.inf
        for place, reply in enumerate(batch):
            banned = blocked[reply].next_tokens(replies[reply]) if reply in alive else []
            if banned:
                logits[place, banned] = -torch.inf
        chosen = draw(logits, numbers[batch, step].to(logits.device), sampling)
        for reply, token in zip(batch, chosen.tolist(), strict=True):
            if reply in alive:
                replies[reply].append(token)
                if token in ends:
                    alive.discard(reply)
        if not alive or step + 1 == sampling.max_tokens:
            break
        if len(alive) <= (1 - COMPACT) * len(batch):
            kept = [place for place, reply in enumerate(batch) if reply in alive]
            batch = [batch[place] for place in kept]
            index = torch.tensor(kept, device=chosen.device)
            state, chosen = state.pick(index), chosen[index]
        logits = model.after(state, chosen[:, None])[:, -1].clone()
    return replies


def draw(logits: Tensor, numbers: Tensor, sampling: Sampling) -> Tensor:
    """Choose one token a row: temperature, then top-k, top-p and typical filtering, then the row's number.

    Args:
        logits: (R, vocabulary) float.
        numbers: (R,) float64 in [0, 1).
        sampling: the settings.

    Returns:
        (R,) int64. The result is a function of its own row alone.
    """
    scores = (logits if logits.dtype == torch.float64 else logits.float()) / sampling.temperature
    if sampling.typical_p < 1:
        return _pick(_typical(_spread(scores, sampling), sampling.typical_p), None, numbers)
    if sampling.top_k <= 0 and sampling.top_p >= 1:
        return _pick(scores, None, numbers)
    chosen = torch.empty(len(scores), dtype=torch.int64, device=scores.device)
    rows = torch.arange(len(scores), device=scores.device)
    for width in _widths(sampling, scores.shape[1]):  # most nuclei are small, and sorting a vocabulary is slow
        values, tokens, whole = _likeliest(scores if len(rows) == len(scores) else scores[rows], width, sampling)
        chosen[rows[whole]] = _pick(values[whole], tokens[whole], numbers[rows[whole]])
        rows = rows[~whole]
        if not len(rows):
            return chosen
    wide = scores[rows].sort(dim=1, descending=True)
    kept = torch.full_like(wide.values, -torch.inf).scatter(1, wide.indices, nucleus(wide.values, sampling.top_p)[0])
    chosen[rows] = _pick(kept, None, numbers[rows])
    return chosen


def nucleus(values: Tensor, top_p: float, total: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Keep the smallest set of likeliest tokens whose probability reaches ``top_p``.

    Args:
        values: (R, K) float, descending.
        top_p: 0 to 1.
        total: (R, 1) logsumexp of the whole row where ``values`` is a part of it.

    Returns:
        The values, -inf outside the nucleus, and (R,) bool: whether the nucleus lies within the K.
    """
    total = torch.logsumexp(values, dim=1, keepdim=True) if total is None else total
    shares = torch.exp((values - total).double())
    reached = shares.cumsum(dim=1)
    return values.masked_fill(reached - shares >= top_p, -torch.inf), reached[:, -1] >= top_p


def _widths(sampling: Sampling, vocabulary: int) -> list[int]:
    """Return how many of the likeliest tokens are looked at for the nucleus, one try after the other."""
    if sampling.top_k > 0:
        return [min(sampling.top_k, vocabulary)]
    return [width for width in NUCLEUS if width < vocabulary]


def _likeliest(scores: Tensor, width: int, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
    """Return values and tokens of the likeliest, filtered, and whether each row's filter is sure to lie within them."""
    values, tokens = scores.topk(width, dim=1)
    everything = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
    if sampling.top_p >= 1:
        return values, tokens, everything
    total = None if sampling.top_k > 0 else torch.logsumexp(scores, dim=1, keepdim=True)
    values, whole = nucleus(values, sampling.top_p, total)
    return values, tokens, everything if sampling.top_k > 0 else whole


def _spread(scores: Tensor, sampling: Sampling) -> Tensor:
    """Return the scores of the whole vocabulary, -inf where top-k or top-p drop a token."""
    if sampling.top_k <= 0 and sampling.top_p >= 1:
        return scores
    values, tokens = scores.topk(min(sampling.top_k or scores.shape[1], scores.shape[1]), dim=1)
    return torch.full_like(scores, -torch.inf).scatter(1, tokens, nucleus(values, sampling.top_p)[0])


def _typical(scores: Tensor, typical_p: float) -> Tensor:
    from transformers import TypicalLogitsWarper

    kept: Tensor = TypicalLogitsWarper(mass=typical_p)(torch.empty(0, dtype=torch.int64), scores)
    return kept


def _pick(values: Tensor, tokens: Tensor | None, numbers: Tensor) -> Tensor:
    """Return the token in whose share each row's number falls, shares standing in the order of the vocabulary."""
    if tokens is not None:
        tokens, order = tokens.sort(dim=1)
        values = values.gather(1, order)
    reached = torch.softmax(values, dim=1).double().cumsum(dim=1)
    place = torch.searchsorted(reached, (numbers * reached[:, -1])[:, None], right=True).clamp_max(values.shape[1] - 1)
    # A number that rounds up to the very end would name a dropped token of the end: take the last one that is kept.
    last = values.shape[1] - 1 - torch.isfinite(values).flip(1).int().argmax(dim=1, keepdim=True)
    place = torch.minimum(place, last)
    return (place if tokens is None else tokens.gather(1, place)).squeeze(1)


class BlockedNGrams:
    """Which tokens a reply must not go on with: those that would repeat an n-gram of its own or of its context.

    Args:
        sampling: its ``no_repeat_ngram`` and ``no_context_ngram``.
        context: the context's tokens.
    """

    def __init__(self, sampling: Sampling, context: Sequence[int]) -> None:
        self._own, self._other = sampling.no_repeat_ngram, sampling.no_context_ngram
        self._context = followers(context, self._other)
        self._reply: dict[tuple[int, ...], set[int]] = {}

    def next_tokens(self, reply: Sequence[int]) -> list[int]:
        """Return the banned tokens; to be called at every step, since a reply's own n-grams are added one by one."""
        banned: set[int] = set()
        if self._own and len(reply) >= self._own:
            *before, last = reply[len(reply) - self._own :]
            self._reply.setdefault(tuple(before), set()).add(last)
        for size, known in ((self._own, self._reply), (self._other, self._context)):
            if size and len(reply) >= size - 1:
                banned |= known.get(tuple(reply[len(reply) - size + 1 :]), set())
        return sorted(banned)


def followers(tokens: Sequence[int], size: int) -> dict[tuple[int, ...], set[int]]:
    """Return, for every n-gram of tokens, its last token by the ones before it.

    >>> followers([1, 2, 1, 3], 2)
    {(1,): {2, 3}, (2,): {1}}
    """
    found: dict[tuple[int, ...], set[int]] = {}
    for start in range(len(tokens) - size + 1 if size else 0):
        *before, last = tokens[start : start + size]
        found.setdefault(tuple(before), set()).add(last)
    return found
