"""The order of a search under rules with a second stage, against a plain reading of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.dialogue.text import normalised
from g2r_lightning.errors import G2RError
from g2r_lightning.index import ResponseIndex
from g2r_lightning.index.selection import diverse
from g2r_lightning.inference import ReplyRules
from g2r_lightning.inference.ruled import RuledIndex, SecondStage

ROWS = 12


@given(st.integers(0, 1000), st.integers(1, ROWS), st.integers(1, ROWS + 3), st.integers(0, 3),
       st.sampled_from([None, -1.0, 0.0, 2.0]), st.sampled_from([None, "source = x"]), st.sampled_from([0.0, 0.5]),
       st.integers(1, 6))  # fmt: skip
def test_rules_come_first_then_the_second_stage_then_diversity(
    seed, k, n, no_repeat, threshold, where, diversity, pool
):
    n = max(k, n)
    draw = np.random.default_rng(seed)
    texts = [f"t{number % 4}" + "!" * (number // 4) for number in range(ROWS)]  # equal but for punctuation
    sources = [str(draw.choice(["x", "y"])) for _ in texts]
    vectors = draw.integers(-2, 3, (ROWS, 2)).astype(np.float32)
    index = ResponseIndex(texts, sources, vectors)
    index.faiss_index = None  # which has an order of its own among equal scores
    contexts = [["t1.", "t2"], ["t3", "hi"]]
    encoded = torch.from_numpy(draw.integers(-1, 2, (2, 2)).astype(np.float32))
    anew = [dict(zip(texts, draw.integers(0, 4, ROWS).tolist(), strict=True)) for _ in contexts]
    second = SecondStage(n, lambda asked: [[own[text] for text in one] for own, one in zip(anew, asked, strict=True)])
    rules = ReplyRules(where=where, no_repeat=no_repeat, threshold=threshold, diversity=diversity, pool=pool)
    found = RuledIndex(index).search(encoded, contexts, k, lambda c, r: c @ r.T, rules, second)
    for context, query, own, hits in zip(contexts, encoded.numpy(), anew, found, strict=True):
        score = (vectors @ query).tolist()
        recent = {normalised(turn) for turn in context[-no_repeat:]} if no_repeat else set()
        allowed = [
            row for row in range(ROWS)
            if (where is None or sources[row] == "x") and normalised(texts[row]) not in recent
            and (threshold is None or score[row] >= threshold)
        ]  # fmt: skip
        seen = sorted(allowed, key=lambda row: (-score[row], row))[:n]
        ranked = sorted(seen, key=lambda row: -own[texts[row]])  # stable: equal ones stay in the student's order
        if diversity and k > 1:
            some = ranked[: max(k, pool)]
            order = diverse(np.array([float(own[texts[row]]) for row in some]), vectors[some], k, diversity)
            ranked = [some[place] for place in order] if some else []
        assert [(hit.row, hit.score, hit.rerank_score) for hit in hits] == [
            (row, score[row], own[texts[row]]) for row in ranked[:k]
        ]


def test_scores_that_are_no_numbers_have_no_order():
    index = ResponseIndex(["a", "b"], ["x", "x"], np.eye(2, dtype=np.float32))
    second = SecondStage(2, lambda asked: [[float("nan"), 1.0]])
    with pytest.raises(G2RError, match="NaN or infinite"):
        RuledIndex(index).search(torch.ones(1, 2), [["hi"]], 1, lambda c, r: c @ r.T, ReplyRules(), second)
