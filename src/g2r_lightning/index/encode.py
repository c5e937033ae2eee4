"""Encode many responses: sorted by length, in token-budgeted chunks, without gradients."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from g2r_lightning.data.tokens import TokenIds, pad

Encode = Callable[[Tensor, Tensor], Tensor]
TOKENS_AT_ONCE = 2048


@torch.inference_mode()
def encode_rows(
    encode: Encode,
    rows: Sequence[TokenIds],
    pad_id: int,
    device: torch.device,
    report: Callable[[int], None] | None = None,
    token_budget: int = TOKENS_AT_ONCE,
) -> Tensor:
    """Return one vector a row of token ids, in the rows' order, on the CPU.

    Args:
        encode: ``(ids (n, L), mask (n, L)) -> (n, d)``.
        rows: token ids of each text.
        pad_id: of the padding.
        device: where the model is.
        report: called with the number of rows done since the last call, for a progress bar.
        token_budget: padded tokens of one pass; bounds memory, changes results by rounding only.
    """
    lengths = np.array([len(row) for row in rows])
    order = np.argsort(-lengths, kind="stable")
    vectors: Tensor | None = None
    start = 0
    while start < len(order):
        size = max(token_budget // max(int(lengths[order[start]]), 1), 1)
        chosen = order[start : start + size]
        ids, mask = pad([rows[index] for index in chosen], pad_id)
        part = encode(ids.to(device), mask.to(device)).float().cpu()
        if vectors is None:
            vectors = torch.empty(len(rows), part.shape[1])
        vectors[torch.from_numpy(chosen)] = part
        start += size
        if report is not None:
            report(len(chosen))
    return torch.empty(0, 0) if vectors is None else vectors


def weights_hash(encoder: nn.Module) -> str:
    """Return a hash of every parameter's bytes: which weights made a vector."""
    digest = hashlib.blake2b(digest_size=16)
    for parameter in encoder.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
