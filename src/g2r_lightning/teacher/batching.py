"""Rows of unequal length become tensors without much padding, under a token budget that bounds memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

IGNORED = -100
"""The label of a position that is not scored; PyTorch's ``ignore_index``."""


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group rows so that each group's padded size stays within a budget.

    Args:
        lengths: tokens of each row.
        budget: most padded tokens of a group (rows times longest row). A longer row forms a group of its own.

    Returns:
        Indices into ``lengths``, longest rows first, each index once.

    >>> pack([3, 9, 4, 1], budget=10)
    [[1], [2, 0], [3]]
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def pad(rows: Sequence[Sequence[int]], value: int, device: torch.device | str = "cpu") -> Tensor:
    """Return ``(rows, longest)`` int64, short rows filled with ``value`` at their end."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], device=device)


def mask(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Tensor:
    """Return ``(rows, longest)`` int64: 1 on tokens, 0 on padding, as transformers' ``attention_mask``."""
    return pad([[1] * len(row) for row in rows], 0, device)


def token_log_likelihoods(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the natural-log likelihoods of the labels of each row.

    Args:
        logits: (rows, positions, vocabulary); ``logits[:, i]`` predicts ``labels[:, i]``. Any float type; the
            normalisation is done in float32 (or float64 where the logits are).
        labels: (rows, positions) int64; :data:`IGNORED` where nothing is scored.

    Returns:
        ``(rows,)`` float sums and ``(rows,)`` int64 token counts.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    scored = labels != IGNORED
    chosen = logits.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    values = chosen - torch.logsumexp(logits, dim=-1)
    return values.masked_fill(~scored, 0.0).sum(-1), scored.sum(-1)


def stable_seed(seed: int, names: Iterable[str]) -> int:
    """Return a 63-bit seed that depends on a run's seed and on names, and on nothing else (no ``PYTHONHASHSEED``).

    >>> stable_seed(1, ["a", "b"]) == stable_seed(1, ["a", "b"]) != stable_seed(1, ["ab"])
    True
    """
    digest = hashlib.sha256("\x1f".join([str(seed), *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
