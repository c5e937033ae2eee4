"""Which process encodes which response of a step.

All processes of a step know all its responses, and each encodes a share of them. The responses are dealt out like
cards, from the longest to the shortest, to and fro (0, 1, 2, 2, 1, 0, 0, ...), so that every share holds texts of all
lengths: as many texts as the others, and about as many tokens. Vectors can only be gathered at once where every process
has equally many; a share that comes out one short takes the shortest text again, whose second vector nobody reads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def share_out(lengths: Indices, world_size: int) -> tuple[Indices, Indices]:
    """Deal texts out to processes.

    >>> shares, places = share_out(np.array([5, 1, 4, 2, 3]), 2)
    >>> shares.tolist()
    [[0, 3, 1], [2, 4, 1]]
    >>> shares.ravel()[places].tolist()
    [0, 1, 2, 3, 4]

    Args:
        lengths: (n,) tokens of each text, n >= 1.
        world_size: W, number of processes.

    Returns:
        ``shares`` (W, ceil(n / W)): the texts that each process encodes. ``places`` (n,): where the vector of each text
        lies among those of all processes, the first process's first.
    """
    dealt = np.argsort(-lengths, kind="stable")
    rows = -(-len(dealt) // world_size)
    shortest = np.full(rows * world_size - len(dealt), dealt[-1])
    rounds = np.concatenate([dealt, shortest]).reshape(rows, world_size)
    rounds[1::2] = rounds[1::2, ::-1].copy()
    shares = np.ascontiguousarray(rounds.T)
    places = np.unique(shares, return_index=True)[1]
    return shares, places.astype(np.int64)
