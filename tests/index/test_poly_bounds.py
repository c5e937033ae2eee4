"""What a rough score may be off: never more than is said, in either kind of numbers, and not wildly less."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g2r_lightning.index import poly_screen
from g2r_lightning.index.poly_bounds import lengths_of, sensitivity, slack_of
from g2r_lightning.index.poly_screen import Screen

both_kinds = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def exact_scores(codes, vectors):
    """Return scores in float64 by the formula, one code after the other."""
    products = np.asarray(vectors, np.float64) @ np.asarray(codes, np.float64).T
    weights = np.exp(products - products.max(1, keepdims=True))
    return (weights * products).sum(1) / weights.sum(1)


def off_and_slack(codes, vectors, dtype):
    scores, slack = Screen(vectors, dtype).scores([torch.from_numpy(codes)])
    return np.abs(scores[0].double().numpy() - exact_scores(codes, vectors)), slack[0].double().numpy()


@both_kinds
@settings(max_examples=60)
@given(
    st.integers(1, 60), st.integers(1, 9), st.integers(1, 70), st.integers(0, 10**6),
    st.sampled_from([1e-25, 1e-3, 0.3, 1.0, 7.0, 1e3, 1e12]), st.floats(-3, 3), st.booleans(),
)  # fmt: skip
def test_no_rough_score_is_off_by_more_than_its_slack(dtype, rows, codes, width, seed, scale, shift, same_way):
    draw = np.random.default_rng(seed)
    vectors, many = (draw.normal(shift, 1.0, (n, width)) for n in (rows, codes))
    if same_way:  # every number is rounded downwards, by all that rounding takes
        vectors, many = (np.sign(each) * (1 + 2.0**-8 - 2.0**-20) for each in (vectors, many))
    vectors, many = (vectors * scale).astype(np.float32), many.astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(poly_screen, "IN_CACHE", 7 * codes)
        off, slack = off_and_slack(many, vectors, dtype)
    assert (off <= slack).all()
    assert np.isfinite(slack).all()


@both_kinds
def test_slacks_are_small_beside_the_scores(dtype):
    draw = np.random.default_rng(0)
    vectors, codes = (draw.normal(size=(n, 384)).astype(np.float32) for n in (2000, 64))
    off, slack = off_and_slack(codes / 10, vectors / 10, dtype)
    lengths = np.linalg.norm(codes / 10, axis=1).max() * np.linalg.norm(vectors / 10, axis=1)
    assert (slack / lengths).max() < {torch.float32: 5e-4, torch.bfloat16: 0.03}[dtype]
    assert off.max() > {torch.float32: 1e-5, torch.bfloat16: 1e-3}[dtype] * slack.max()  # which is for the worst case


def test_overflow_rules_nothing_out():
    vectors = np.array([[3e38, 3e38], [1.0, 0.0]], np.float32)
    off, slack = off_and_slack(np.array([[3e38, 1.0]], np.float32), vectors, torch.bfloat16)
    assert not (off[0] <= slack[0] < np.inf)  # what compares with it stays undecided
    assert off[1] <= slack[1]


@pytest.mark.parametrize("codes", [1, 2, 3, 16, 64, 300])
def test_sensitivity_is_never_exceeded_and_not_far_from_reached(codes):
    draw = np.random.default_rng(codes)
    spread = draw.uniform(0, 12, (5_000, 1))
    ones = np.arange(codes) < draw.integers(1, codes + 1, (5_000, 1))  # one or more codes above all others
    products = np.where(draw.random((5_000, 1)) < 0.5, spread * ones, spread * draw.normal(size=(5_000, codes)))
    weights = np.exp(products - products.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    slopes = weights * (1 + products - (weights * products).sum(1, keepdims=True))
    steepest = np.abs(slopes).sum(1).max()
    assert steepest <= sensitivity(codes) + 1e-9
    assert steepest > 0.5 * sensitivity(codes)


def test_float32_factors_that_may_be_rounded_are_reckoned_with():
    codes = torch.ones(4, 8)
    before = slack_of(codes, None).length
    torch.set_float32_matmul_precision("medium")
    try:
        assert slack_of(codes, None).length > 50 * before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_lengths_are_never_too_short():
    draw = np.random.default_rng(0)
    for scale in (1e-40, 1e-22, 1.0, 1e15):
        vectors = (draw.normal(size=(50, 384)) * scale).astype(np.float32)
        assert (
            lengths_of(torch.from_numpy(vectors)).double().numpy() >= np.linalg.norm(vectors.astype(float), axis=1)
        ).all()
