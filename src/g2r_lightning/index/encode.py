"""Encode many responses: sorted by length, in token-budgeted chunks, without gradients."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from g2r_lightning.data.tokens import TokenIds, pad

Encode = Callable[[Tensor, Tensor], Tensor]
TOKENS_AT_ONCE = 2048
Module = TypeVar("Module", bound=nn.Module)


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
        encode: ``(ids (n, L), mask (n, L)) -> (n, d)``, or (n, m, d) of a poly-encoder's contexts.
        rows: token ids of each text.
        pad_id: of the padding.
        device: where the model is.
        report: called with the number of rows done since the last call, for a progress bar.
        token_budget: padded tokens of one pass; bounds memory, changes results by rounding only.
    """
    vectors: Tensor | None = None
    for chosen in token_chunks(np.array([len(row) for row in rows], np.int64), token_budget):
        ids, mask = pad([rows[index] for index in chosen], pad_id)
        part = encode(ids.to(device), mask.to(device)).float().cpu()
        if vectors is None:
            # told, since a trainer in bf16-true has a default of its own
            vectors = torch.empty(len(rows), *part.shape[1:], dtype=torch.float32)
        vectors[torch.from_numpy(chosen)] = part
        if report is not None:
            report(len(chosen))
    return torch.empty(0, 0) if vectors is None else vectors


def rounded(encoder: Module) -> Module:
    """Return a copy of an encoder with bfloat16 weights, to encode many texts by.

    Autocast rounds the weights again for every pass, and keeps what lies between the products in float32: it takes
    twice the time of such a copy on a CPU with bfloat16 instructions, and is hardly more exact.
    """
    return deepcopy(encoder).to(torch.bfloat16)


def token_chunks(lengths: npt.NDArray[np.int64], token_budget: int) -> list[npt.NDArray[np.int64]]:
    """Cut rows into chunks of similar length, the longest first, each within a budget.

    >>> [chunk.tolist() for chunk in token_chunks(np.array([3, 9, 4, 1]), 10)]
    [[1], [2, 0], [3]]

    Args:
        lengths: (n,) tokens of each row.
        token_budget: most padded tokens of a chunk (rows times longest row); a longer row is a chunk of its own.

    Returns:
        Rows of each chunk, its longest first; each row once.
    """
    order = np.argsort(-lengths, kind="stable")
    chunks, start = [], 0
    while start < len(order):
        size = max(token_budget // max(int(lengths[order[start]]), 1), 1)
        chunks.append(order[start : start + size])
        start += size
    return chunks


def weights_hash(encoder: nn.Module) -> str:
    """Return a hash of every parameter's bytes: which weights made a vector."""
    digest = hashlib.blake2b(digest_size=16)
    for parameter in encoder.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
