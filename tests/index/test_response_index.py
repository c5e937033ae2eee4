"""The search for the best responses: exact by blocks, by FAISS, and where FAISS finds too few."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g2r_lightning.data.tokens import pad
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index import ResponseIndex, best_by_blocks, encode_rows
from g2r_lightning.index import response_index as module


def dot(contexts, responses):
    return contexts @ responses.T


def best_code(contexts, responses):
    return torch.einsum("bmd,ud->bmu", contexts, responses).amax(dim=1)


def index_of(vectors, factory="Flat", **options):
    count = len(vectors)
    return ResponseIndex([f"r{i}" for i in range(count)], ["original"] * count, vectors, factory, **options)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 7), st.integers(0, 1000))
def test_blocks_find_the_best_in_order_and_ties_by_row(responses, k, block, seed):
    draw = np.random.default_rng(seed)
    vectors = torch.from_numpy(draw.integers(-2, 3, (responses, 2)).astype(np.float32))  # whole numbers: many ties
    contexts = torch.from_numpy(draw.integers(-2, 3, (3, 2)).astype(np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        scores, rows = best_by_blocks(contexts, vectors, k, dot)
    for own, found, context in zip(scores.tolist(), rows.tolist(), contexts.tolist(), strict=True):
        every = [sum(a * b for a, b in zip(context, vector, strict=True)) for vector in vectors.tolist()]
        expected = sorted(range(responses), key=lambda row: (-every[row], row))[:k]
        assert found == expected
        assert own == [every[row] for row in expected]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 1000))
def test_faiss_flat_equals_the_search_by_blocks(responses, k, seed):
    pytest.importorskip("faiss")
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(responses, 8)).astype(np.float32) - 0.5
    contexts = torch.from_numpy(draw.normal(size=(5, 8)).astype(np.float32))
    index = index_of(vectors)
    assert index.faiss_index is not None
    scores, rows = index.search(contexts, k, dot)
    exact_scores, exact_rows = best_by_blocks(contexts, torch.from_numpy(vectors), k, dot)
    assert torch.equal(rows, exact_rows)
    assert torch.allclose(scores, exact_scores, atol=1e-5)
    assert rows.shape == (5, min(k, responses))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 7), st.integers(0, 1000), st.booleans(), st.booleans())
def test_rows_that_are_not_kept_are_never_returned_and_the_others_as_if_they_were_alone(
    responses, k, block, seed, faiss_too, codes
):
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(responses, 4)).astype(np.float32)
    keep = draw.random(responses) < draw.random()
    contexts = torch.from_numpy(draw.normal(size=(3, 2, 4) if codes else (3, 4)).astype(np.float32))
    score = best_code if codes else dot
    index = index_of(vectors)
    if not faiss_too:
        index.faiss_index = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        scores, rows = index.search(contexts, k, score, keep)
    alone_scores, alone_rows = best_by_blocks(contexts, torch.from_numpy(vectors[keep]), k, score)
    assert rows.shape == (3, min(k, keep.sum()))
    assert torch.equal(rows, torch.from_numpy(np.flatnonzero(keep))[alone_rows])
    assert torch.allclose(scores, alone_scores, atol=1e-5)


def test_an_approximate_index_searches_exactly_what_is_kept():
    pytest.importorskip("faiss")
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(160, 4)).astype(np.float32)
    contexts = torch.from_numpy(draw.normal(size=(6, 4)).astype(np.float32))
    keep = np.arange(160) % 3 == 0
    _, rows = index_of(vectors, "IVF16,Flat").search(contexts, 5, dot, keep)
    assert torch.equal(rows, index_of(vectors[keep]).search(contexts, 5, dot)[1] * 3)


def test_without_faiss_flat_gives_the_same_and_others_say_what_is_missing(monkeypatch):
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(50, 8)).astype(np.float32)
    contexts = torch.from_numpy(draw.normal(size=(4, 8)).astype(np.float32))
    with_faiss = index_of(vectors).search(contexts, 5, dot)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "faiss" else pytest.fail(name))
    bare = index_of(vectors)
    assert bare.faiss_index is None
    assert torch.equal(bare.search(contexts, 5, dot)[1], with_faiss[1])
    with pytest.raises(ConfigError, match=r"'IVF4,Flat' needs faiss: pip install faiss-cpu"):
        index_of(vectors, "IVF4,Flat")


def test_an_index_that_visits_too_few_still_gives_k_replies():
    """FAISS fills up with row -1, which in Python would be the last response."""
    pytest.importorskip("faiss")
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(160, 4)).astype(np.float32)
    contexts = torch.from_numpy(draw.normal(size=(6, 4)).astype(np.float32))
    index = index_of(vectors, "IVF16,Flat")
    assert (index.faiss_index.search(contexts.numpy(), 60)[1] < 0).any()  # else this test shows nothing
    scores, rows = index.search(contexts, 60, dot)
    assert (rows >= 0).all()
    assert all(len(set(own)) == 60 for own in rows.tolist())
    assert torch.allclose(scores, (contexts @ torch.from_numpy(vectors).T).gather(1, rows), atol=1e-5)
    assert (scores[:, :-1] >= scores[:, 1:]).all()


def test_codes_are_searched_by_the_students_own_score():
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(30, 4)).astype(np.float32)
    codes = torch.from_numpy(draw.normal(size=(2, 3, 4)).astype(np.float32))
    _, rows = index_of(vectors).search(codes, 4, best_code)
    expected = best_code(codes, torch.from_numpy(vectors)).argsort(dim=1, descending=True)[:, :4]
    assert torch.equal(rows, expected)


def test_what_no_index_can_be_made_of():
    vectors = np.zeros((2, 4), np.float32)
    with pytest.raises(G2RError, match="response set is empty"):
        index_of(vectors[:0])
    with pytest.raises(G2RError, match="2 texts, 1 sources, 2 vectors"):
        ResponseIndex(["a", "b"], ["original"], vectors)
    vectors[1, 2] = np.nan
    with pytest.raises(G2RError, match="response 'r1' is NaN"):
        index_of(vectors)
    with pytest.raises(ConfigError, match="'Nonsense'"):
        index_of(np.zeros((2, 4), np.float32), "Nonsense")
    with pytest.raises(ConfigError, match=r"'IVF64,Flat' over 2 vectors"):
        index_of(np.zeros((2, 4), np.float32), "IVF64,Flat")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 40))
def test_encoding_keeps_the_order_and_the_budget(lengths, budget):
    rows = [np.full(length, number + 1, np.int32) for number, length in enumerate(lengths)]
    seen, done = [], []

    def encode(ids, mask):
        seen.append(ids.numel())
        assert len(ids) == 1 or ids.numel() <= budget
        return torch.stack([(ids * mask).sum(dim=1), mask.sum(dim=1)], dim=1).float()

    vectors = encode_rows(encode, rows, 0, torch.device("cpu"), done.append, budget)
    assert vectors.tolist() == [[(number + 1) * length, length] for number, length in enumerate(lengths)]
    assert sum(done) == len(rows)
    assert len(done) == len(seen)
    ids, mask = pad(rows, 0)
    assert torch.equal(
        vectors, encode_rows(lambda *_: encode_all(ids, mask), rows, 0, torch.device("cpu"), None, 10**6)
    )


def encode_all(ids, mask):
    order = torch.argsort(mask.sum(dim=1), descending=True, stable=True)
    return torch.stack([(ids * mask).sum(dim=1), mask.sum(dim=1)], dim=1).float()[order]
