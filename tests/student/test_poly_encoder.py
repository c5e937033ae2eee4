"""The poly-encoder's score against a literal, step-by-step reading of Humeau et al. 2019."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g2r_lightning.student import BiEncoder, PolyEncoder
from g2r_lightning.student.poly_encoder import attended_scores


def literal_score(codes, response):
    """One context and one response: attend over the codes, mix them, take the product. Plain Python numbers."""
    logits = [sum(a * b for a, b in zip(code, response, strict=True)) for code in codes if any(code)]
    total = sum(math.exp(z - max(logits)) for z in logits)
    weights = [math.exp(z - max(logits)) / total for z in logits]
    kept = [code for code in codes if any(code)]
    mix = [sum(w * code[i] for w, code in zip(weights, kept, strict=True)) for i in range(len(response))]
    return sum(a * b for a, b in zip(mix, response, strict=True))


@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 9), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_score_is_the_literal_one(contexts, codes, responses, seed):
    draw = torch.Generator().manual_seed(seed)
    y = torch.randn(contexts, codes, 6, generator=draw, dtype=torch.float64)
    if codes > 1:
        y[0, -1] = 0  # a code that a short context does not have
    r = torch.randn(responses, 6, generator=draw, dtype=torch.float64)
    score = attended_scores(y, r, 1 << 20)
    for b in range(contexts):
        for u in range(responses):
            assert score[b, u].item() == pytest.approx(literal_score(y[b].tolist(), r[u].tolist()), abs=1e-10)


@given(st.integers(1, 500))
@settings(max_examples=20, deadline=None)
def test_chunks_change_nothing(chunk):
    y, r = torch.randn(3, 4, 8, dtype=torch.float64), torch.randn(37, 8, dtype=torch.float64)
    assert torch.allclose(attended_scores(y, r, chunk), attended_scores(y, r, 1 << 30), atol=1e-12)


def test_score_never_exceeds_the_best_code():
    y, r = torch.randn(4, 16, 8), torch.randn(50, 8)
    best = torch.einsum("bmd,ud->bmu", y, r).amax(dim=1)
    assert (attended_scores(y, r, 1 << 20) <= best + 1e-5).all()


def test_one_code_is_a_bi_encoder():
    y, r = torch.randn(4, 1, 8), torch.randn(5, 8)
    assert torch.allclose(attended_scores(y, r, 1 << 20), y[:, 0] @ r.T, atol=1e-5)


def test_memory_of_a_large_response_set_is_bounded(tiny_encoder_folder):
    student = PolyEncoder(str(tiny_encoder_folder), codes=64, score_chunk=1 << 16)
    assert student.num_codes == 64
    largest = 0
    original = torch.Tensor.__matmul__

    def watched(self, other):
        nonlocal largest
        product = original(self, other)
        largest = max(largest, product.numel())
        return product

    y, r = torch.randn(2, 64, student.dimension), torch.randn(20_000, student.dimension)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "__matmul__", watched)
        assert student.score(y, r).shape == (2, 20_000)
    assert largest <= 1 << 16


@pytest.mark.parametrize("code_type", ["learned", "first"])
@pytest.mark.parametrize("kind", ["bi", "poly"])
@pytest.mark.parametrize("normalise", [True, False])
def test_scores_do_not_depend_on_padding_company_or_order(tiny_encoder_folder, kind, code_type, normalise):
    name = str(tiny_encoder_folder)
    torch.manual_seed(3)
    student = (
        BiEncoder(name, normalise=normalise, token_budget=32)
        if kind == "bi"
        else PolyEncoder(name, codes=5, code_type=code_type, normalise=normalise, token_budget=32)
    ).eval()
    draw = torch.Generator().manual_seed(1)
    texts = [torch.randint(5, 60, (n,), generator=draw) for n in (3, 9, 4, 12, 2, 7)]
    with torch.no_grad():
        whole = student(*_padded(texts, 12), *_padded(texts[::-1], 20)).flip(1)
        for b, context in enumerate(texts):
            for u, response in enumerate(texts):
                alone = student(*_padded([context], len(context)), *_padded([response], len(response) + 3))
                assert whole[b, u].item() == pytest.approx(alone.item(), abs=2e-5)


def test_first_codes_are_the_first_token_vectors(tiny_encoder_folder):
    student = PolyEncoder(str(tiny_encoder_folder), codes=4, code_type="first").eval()
    ids, mask = _padded([torch.tensor([5, 6, 7, 8, 9, 10]), torch.tensor([11, 12])], 6)
    with torch.no_grad():
        codes = student.encode_contexts(ids, mask)
        hidden = student.context_tower(ids, mask)
    assert torch.allclose(codes[0], hidden[0, :4], atol=1e-6)
    assert torch.allclose(codes[1, :2], hidden[1, :2], atol=1e-6)
    assert (codes[1, 2:] == 0).all()


def test_learned_codes_attend_over_the_tokens_that_are_there(tiny_encoder_folder):
    student = PolyEncoder(str(tiny_encoder_folder), codes=3).eval()
    ids, mask = _padded([torch.tensor([5, 6, 7])], 8)
    with torch.no_grad():
        hidden = student.context_tower(ids, mask)[0, :3]
        logits = student.codes @ hidden.T
        expected = torch.stack([(torch.softmax(row, 0).unsqueeze(1) * hidden).sum(0) for row in logits])
        assert torch.allclose(student.encode_contexts(ids, mask)[0], expected, atol=1e-5)


def test_default_is_64_learned_codes(tiny_encoder_folder):
    student = PolyEncoder(str(tiny_encoder_folder))
    assert student.codes is not None
    assert student.codes.shape == (64, student.dimension)


def _padded(rows, width):
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask
