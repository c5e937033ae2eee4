"""Which of the found replies are said: no repeats, no twins, nothing that scores too low, nothing that is blocked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.errors import ConfigError, DataError
from g2r_lightning.index.block_list import BlockedResponses, read_block_list
from g2r_lightning.index.selection import diverse, good_enough, said, unsaid


def test_what_the_last_turns_said_is_known_in_all_spellings():
    context = ["Good morning", "Hello!", "how  are you"]
    assert unsaid(["hello", "How are you?", "good morning."], said(context, 2)).tolist() == [False, False, True]
    assert unsaid(["hello", "How are you?", "good morning."], said(context, 9)).tolist() == [False] * 3
    assert unsaid(["hello"], said(context, 0)).tolist() == [True]
    assert unsaid([], said(context, 2)).shape == (0,)


def test_a_threshold_is_reached_or_not():
    scores = np.array([2.0, 1.0, -1.0], np.float32)
    assert good_enough(scores, 1.0).tolist() == [True, True, False]
    assert good_enough(scores, None).all()
    assert not good_enough(scores, 3.0).any()


def test_marginal_relevance_by_hand():
    """Scores 4, 3, 2, 0 are relevances 1, 3/4, 1/2, 0; the second is the first's twin, the third at right angles.

    At diversity 1/2, after the first: second 3/8 - 1/2 = -1/8, third 1/4 - 0, fourth 0 + 1/2 (it points away).
    Then, the closest being max(cos to first, cos to fourth): second -1/8, third 1/4.
    """
    scores = np.array([4, 3, 2, 0], np.float32)
    vectors = np.array([[1, 0], [2, 0], [0, 3], [-1, 0]], np.float32)
    assert diverse(scores, vectors, 4, 0.5).tolist() == [0, 3, 2, 1]
    assert diverse(scores, vectors, 2, 0.5).tolist() == [0, 3]
    assert diverse(scores, vectors, 4, 0.0).tolist() == [0, 1, 2, 3]
    assert diverse(scores, vectors, 4, 0.1).tolist() == [0, 1, 2, 3]  # second 0.675 - 0.1, third 0.45
    assert diverse(scores, vectors, 3, 1.0).tolist() == [0, 3, 2]
    assert diverse(scores[:0], vectors[:0], 3, 0.5).tolist() == []
    assert diverse(np.ones(3, np.float32), np.zeros((3, 2), np.float32), 3, 0.5).tolist() == [0, 1, 2]  # all alike


@given(st.integers(1, 9), st.integers(1, 10), st.floats(0, 1), st.integers(0, 10**6))
def test_marginal_relevance_is_the_greedy_choice(count, k, diversity, seed):
    draw = np.random.default_rng(seed)
    scores = np.sort(draw.normal(size=count).astype(np.float32))[::-1].copy()
    vectors = draw.normal(size=(count, 3)).astype(np.float32)
    order = diverse(scores, vectors, k, diversity).tolist()
    assert len(set(order)) == len(order) == min(k, count)
    assert order[0] == 0
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    spread = float(scores[0]) - float(scores[-1])
    relevance = [(float(one) - float(scores[-1])) / spread if spread else 1.0 for one in scores]
    for place in range(1, len(order)):
        worth = {
            row: (1 - diversity) * relevance[row]
            - diversity * max(float(unit[row] @ unit[one]) for one in order[:place])
            for row in set(range(count)) - set(order[:place])
        }
        assert worth[order[place]] >= max(worth.values()) - 1e-9
    assert diverse(scores * 7 - 3, vectors * 5, k, 0.3).tolist() == diverse(scores, vectors, k, 0.3).tolist()


def test_blocked_texts_and_expressions():
    blocked = BlockedResponses(["I hate you."], [r"\bbuy\b.*\bnow\b"])
    texts = ["i  HATE you!", "I hate you too", "Buy it, now", "buyers know"]
    assert blocked.mask(texts).tolist() == [False, True, False, True]
    assert blocked
    assert not BlockedResponses()
    assert BlockedResponses().mask(texts).all()
    assert BlockedResponses(patterns=["buy"], ignore_case=False).mask(texts).tolist() == [True, True, True, False]


def test_expressions_that_cannot_be_used():
    with pytest.raises(ConfigError, match=r"pattern='\(a'"):
        BlockedResponses(patterns=["(a"])
    slow = BlockedResponses(patterns=["(a|aa)+$"], timeout_s=0.01)
    with pytest.raises(ConfigError, match=r"took more than 0.01 s on the response 'aaaaaa.*\(\?>"):
        slow.mask(["fine", "a" * 60 + "b"])


def test_a_block_list_is_a_file_of_both(tmp_path):
    file = tmp_path / "block.txt"
    file.write_text("# ours\nI hate you.\n\n/\\bbuy\\b/\n /not/alone \n/\n", encoding="utf-8")
    assert read_block_list(file) == (["I hate you.", "/not/alone", "/"], [r"\bbuy\b"])
    file.write_text("# nothing\n")
    with pytest.raises(DataError, match="lists nothing"):
        read_block_list(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        read_block_list(file)
    with pytest.raises(DataError, match="No such file"):
        read_block_list(tmp_path / "none.txt")
