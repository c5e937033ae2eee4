"""Which texts were seen already, in 16 bytes each: what lets a response set be read in pieces.

A Python set of digests takes more than 100 bytes a text. Here the digests lie in sorted arrays, each at least twice as
large as the next, so that a text is looked up in a handful of binary searches and moved a handful of times. Two texts
of one digest would be taken for one; among a thousand million that happens with a probability below 1e-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

SIZE = 16  # bytes of a digest


class SeenKeys:
    """The keys that were added so far."""

    def __init__(self) -> None:
        self._sorted: list[npt.NDArray[np.bytes_]] = []

    def __len__(self) -> int:
        return sum(map(len, self._sorted))

    def add(self, keys: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Add keys, and tell of each whether it is its first time.

        >>> SeenKeys().add(["hi", "bye", "hi"]).tolist()
        [True, True, False]

        Args:
            keys: n of them; best some thousands at a time.

        Returns:
            (n,) bool.
        """
        digests = np.frombuffer(b"".join(map(_digest, keys)), f"S{SIZE}")
        new = np.zeros(len(keys), bool)
        new[np.unique(digests, return_index=True)[1]] = True
        for held in self._sorted:
            place = np.searchsorted(held, digests)
            new &= held[np.minimum(place, len(held) - 1)] != digests
        self._insert(np.sort(digests[new]))
        return new

    def _insert(self, fresh: npt.NDArray[np.bytes_]) -> None:
        while len(fresh) and self._sorted and len(self._sorted[-1]) < 2 * len(fresh):
            fresh = np.concatenate([self._sorted.pop(), fresh])
            fresh.sort(kind="stable")  # two sorted runs are merged
        if len(fresh):
            self._sorted.append(fresh)


def _digest(key: str) -> bytes:
    return blake2b(key.encode(), digest_size=SIZE).digest()
