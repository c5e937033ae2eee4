from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.teacher.batching import IGNORED, mask, pack, pad, stable_seed, token_log_likelihoods


@given(st.lists(st.integers(1, 50)), st.integers(1, 200))
def test_groups_hold_each_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = pack(lengths, budget)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[row] for row in group) <= budget
    ordered = [lengths[row] for group in groups for row in group]
    assert ordered == sorted(lengths, reverse=True)


def test_padding() -> None:
    assert pad([[1, 2], [3]], 9).tolist() == [[1, 2], [3, 9]]
    assert mask([[1, 2], [3]]).tolist() == [[1, 1], [1, 0]]


def test_likelihoods_by_hand() -> None:
    """Two tokens of probability 1/4 and 3/4; an ignored position would give NaN if it were read."""
    quarter = [0.0, math.log(3.0)]
    logits = torch.tensor([[quarter, [math.nan, math.nan], quarter]])
    sums, counts = token_log_likelihoods(logits, torch.tensor([[0, IGNORED, 1]]))
    assert sums.item() == pytest.approx(math.log(0.25) + math.log(0.75))
    assert counts.item() == 2


@given(st.floats(-1e4, 1e4))
def test_likelihoods_do_not_depend_on_a_shift_of_logits(shift: float) -> None:
    logits = torch.linspace(-3, 3, 20, dtype=torch.float64).view(1, 4, 5)
    labels = torch.tensor([[0, 1, 2, 4]])
    base, moved = token_log_likelihoods(logits, labels)[0], token_log_likelihoods(logits + shift, labels)[0]
    assert moved.item() == pytest.approx(base.item(), abs=1e-9)


def test_bfloat16_logits_are_normalised_in_float32() -> None:
    logits = torch.zeros(1, 1, 30_000, dtype=torch.bfloat16)
    assert token_log_likelihoods(logits, torch.tensor([[5]]))[0].item() == pytest.approx(-math.log(30_000), abs=1e-5)


def test_seeds_are_stable_between_processes() -> None:
    assert stable_seed(0, ["t:a:1"]) == 3596018898899959723
    assert len({stable_seed(seed, names) for seed in (0, 1) for names in ([], ["a"], ["a", "b"], ["b", "a"])}) == 8
