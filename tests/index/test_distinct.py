"""Repeated texts are found whatever the pieces they come in, in little memory."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.index.distinct import SeenKeys


@given(pieces=st.lists(st.lists(st.text("abc\0é", max_size=3), max_size=30), max_size=12))
def test_it_is_a_set(pieces):
    seen, expected = SeenKeys(), set()
    for piece in pieces:
        first = [key not in expected and key not in piece[:place] for place, key in enumerate(piece)]
        assert seen.add(piece).tolist() == first
        expected.update(piece)
    assert len(seen) == len(expected)


def test_arrays_are_few_and_hold_16_bytes_a_key():
    seen = SeenKeys()
    for start in range(0, 40_000, 500):
        assert seen.add([str(number) for number in range(start, start + 500)]).all()
    assert not seen.add(["7", "39999"]).any()
    assert sum(part.nbytes for part in seen._sorted) == 16 * 40_000
    assert len(seen._sorted) <= np.log2(80)
