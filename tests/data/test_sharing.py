"""Who encodes what: every text by one process, none left out, and no process with much more to do than another."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.data.sharing import share_out

lengths_of_texts = st.lists(st.integers(1, 64), min_size=1, max_size=60).map(lambda found: np.array(found, np.int64))


@given(lengths_of_texts, st.integers(1, 9))
def test_every_text_is_in_one_place_and_shares_are_even(lengths, world_size):
    shares, places = share_out(lengths, world_size)
    assert shares.shape == (world_size, -(-len(lengths) // world_size))
    assert len(set(places.tolist())) == len(lengths)
    assert shares.ravel()[places].tolist() == list(range(len(lengths)))  # gathered in this order, nothing is missing
    tokens = lengths[shares].sum(axis=1)
    assert tokens.max() - tokens.min() <= lengths.max() - lengths.min()
    repeated = np.delete(shares.ravel(), places)
    assert len(repeated) < world_size
    assert (lengths[repeated] == lengths.min()).all()  # what is encoded in vain costs least


def test_by_hand():
    shares, places = share_out(np.array([5, 1, 4, 2, 3]), 2)
    assert shares.tolist() == [[0, 3, 1], [2, 4, 1]]  # 5 | 4, then the other way round 3 | 2, then the 1 for both
    assert places.tolist() == [0, 2, 3, 1, 4]
    shares, places = share_out(np.array([7]), 3)
    assert shares.tolist() == [[0], [0], [0]]
    assert places.tolist() == [0]
