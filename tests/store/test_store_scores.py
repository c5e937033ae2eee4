from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.errors import StoreError
from g2r_lightning.store import teacher_score

LL, N = [-6.0, -2.0, -9.0], [3, 4, 2]
PRIOR, PRIOR_N = [-12.0, -1.0, -9.5], [4, 4, 5]


@pytest.mark.parametrize(
    ("kind", "normalise", "expected"),
    [
        ("ll", False, [-6.0, -2.0, -9.0]),
        ("ll", True, [-2.0, -0.5, -4.5]),
        ("mi", False, [6.0, -1.0, 0.5]),
        ("mi", True, [-2.0 + 3.0, -0.5 + 0.25, -4.5 + 1.9]),
    ],
)
def test_hand_computed(kind, normalise, expected):
    found = teacher_score(LL, N, PRIOR, PRIOR_N, kind=kind, normalise=normalise)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_normalised_ll_is_the_log_of_the_geometric_mean_token_probability():
    probabilities = [0.5, 0.25, 0.125, 0.9]
    total = sum(math.log(p) for p in probabilities)
    found = teacher_score([total], [4], kind="ll", normalise=True)
    assert math.exp(found[0]) == pytest.approx(math.prod(probabilities) ** 0.25)


@given(st.lists(st.tuples(st.floats(-500, 0), st.integers(1, 100)), min_size=1))
def test_mi_against_itself_is_nothing(rows):
    sums, counts = zip(*rows, strict=True)
    for normalise in (True, False):
        assert not teacher_score(sums, counts, sums, counts, kind="mi", normalise=normalise).any()


def test_the_input_is_not_changed_and_not_shared():
    sums = np.array(LL)
    teacher_score(sums, N, kind="ll", normalise=False)[0] = 7.0
    np.testing.assert_array_equal(sums, LL)


@pytest.mark.parametrize("prior", [(None, None), (PRIOR, None), (None, PRIOR_N)])
def test_mi_without_a_prior_names_the_command(prior):
    with pytest.raises(StoreError, match=r"--scoring\.prior=empty"):
        teacher_score(LL, N, *prior, kind="mi", normalise=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused_by_name(bad):
    with pytest.raises(StoreError, match=f"log_likelihood is {bad} for candidate 1 of x.*1 of 3"):
        teacher_score([-1.0, bad, -1.0], N, kind="ll", normalise=True, label=lambda row: f"candidate {row} of x")
    with pytest.raises(StoreError, match=f"prior_log_likelihood is {bad} for row 2"):
        teacher_score(LL, N, [-1.0, -1.0, bad], PRIOR_N, kind="mi", normalise=False)
    assert teacher_score(LL, N, [-1.0, -1.0, bad], PRIOR_N, kind="ll", normalise=False)[0] == -6.0


@pytest.mark.parametrize("count", [0, -1])
def test_a_sum_over_no_tokens_is_refused(count):
    for normalise in (True, False):
        with pytest.raises(StoreError, match=f"row 0 is a sum over {count} tokens"):
            teacher_score([-1.0], [count], kind="ll", normalise=normalise)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="token counts"):
        teacher_score(LL, N[:1], kind="ll", normalise=True)
