"""The G2R loss against a literal float64 transcription of its definition, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.losses import G2RLoss, response_selection, score_transfer, teacher_distribution


def literal_loss(scores, positives, candidates, negatives, teacher, alpha, temperature):
    """Kim et al. 2021 written down row by row and response by response, without any of the package's code."""
    cross_entropies, transfers = [], []
    for s, pos, cand, neg, t in zip(scores, positives, candidates, negatives, teacher, strict=True):
        noise = [math.exp(s[u]) for u in range(len(s)) if neg[u]]
        for u in range(len(s)):
            if pos[u]:
                own = math.exp(s[u])
                cross_entropies.append(-math.log(own / (own + math.fsum(noise))))
        members = [u for u in range(len(s)) if cand[u]]
        if members:
            weights = [math.exp(t[u] / temperature) for u in members]
            q = [w / math.fsum(weights) for w in weights]
            total = math.fsum([math.exp(s[u]) for u in members] + noise)
            transfers.append(
                -math.fsum(q_u * math.log(math.exp(s[u]) / total) for q_u, u in zip(q, members, strict=True))
            )
    ce = math.fsum(cross_entropies) / max(len(cross_entropies), 1)
    kd = math.fsum(transfers) / max(len(transfers), 1)
    return (1 - alpha) * ce + alpha * kd, ce, kd


@st.composite
def steps(draw):
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    candidates = rng.random((rows, columns)) < draw(st.sampled_from([0.2, 0.6, 1.0]))
    candidates[np.arange(rows), rng.integers(0, columns, rows)] = True
    negatives = ~candidates & (rng.random((rows, columns)) < draw(st.sampled_from([0.0, 0.5, 1.0])))
    positives = candidates & (rng.random((rows, columns)) < 0.8)
    scores = rng.normal(0, draw(st.sampled_from([0.1, 1.0, 8.0])), (rows, columns))
    teacher = np.where(candidates, rng.normal(-2, 1.5, (rows, columns)), np.nan)
    return [torch.from_numpy(x) for x in (scores, positives, candidates, negatives, teacher)]


@given(steps(), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.sampled_from([0.25, 1.0, 4.0]))
def test_equals_the_literal_definition(step, alpha, temperature):
    scores, positives, candidates, negatives, teacher = step
    out = G2RLoss(alpha, temperature)(scores, positives, negatives, teacher, candidates)
    total, ce, kd = literal_loss(*(x.tolist() for x in step), alpha, temperature)
    assert out.total.item() == pytest.approx(total, abs=1e-10)
    assert out.cross_entropy.item() == pytest.approx(ce, abs=1e-10)
    assert out.score_transfer.item() == pytest.approx(kd, abs=1e-10)
    assert out.kl.item() >= -1e-12
    assert out.kl.item() == pytest.approx(kd - out.teacher_entropy.item(), abs=1e-12)


@given(steps(), st.integers(0, 1000))
def test_order_of_responses_and_shifts_of_a_row_change_nothing(step, seed):
    scores, positives, candidates, negatives, teacher = step
    order = torch.from_numpy(np.random.default_rng(seed).permutation(scores.shape[1]))
    shift = torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (len(scores), 1)))
    loss = G2RLoss(0.3, 0.7)
    plain = loss(scores, positives, negatives, teacher, candidates).total
    moved = loss(
        (scores + shift)[:, order], positives[:, order], negatives[:, order], (teacher + 2 * shift)[:, order],
        candidates[:, order],
    ).total  # fmt: skip
    assert moved.item() == pytest.approx(plain.item(), abs=1e-9)


@given(steps(), st.integers(1, 4), st.sampled_from([0.0, 0.3, 1.0]))
def test_rows_shared_out_and_divided_by_the_counts_of_all_give_the_same_mean_and_gradient(step, parts, alpha):
    whole, shared = (step[0].clone().requires_grad_(True) for _ in range(2))
    _, positives, candidates, negatives, teacher = step
    loss = G2RLoss(alpha)
    expected = loss(whole, positives, negatives, teacher, candidates)
    expected.total.backward()
    counts = [count.sum().clamp(min=1) / parts for count in (positives, candidates.any(dim=1))]
    outs = [
        loss(
            shared[p::parts], positives[p::parts], negatives[p::parts], teacher[p::parts], candidates[p::parts], *counts
        )
        for p in range(min(parts, len(shared)))
    ]
    (sum(out.total for out in outs) / parts).backward()
    assert whole.grad is not None
    assert torch.allclose(shared.grad, whole.grad, rtol=1e-6, atol=1e-12)
    for name in ("total", "cross_entropy", "score_transfer", "kl", "teacher_entropy"):
        mean = sum(getattr(out, name) for out in outs) / parts
        assert mean.item() == pytest.approx(getattr(expected, name).item(), rel=1e-6, abs=1e-12)


def test_by_hand():
    scores = torch.tensor([[math.log(2), math.log(3), math.log(1)]], dtype=torch.float64)
    positives = torch.tensor([[True, True, False]])
    negatives = torch.tensor([[False, False, True]])
    teacher = torch.tensor([[math.log(1), math.log(3), float("nan")]], dtype=torch.float64)
    out = G2RLoss(0.5, 1.0)(scores, positives, negatives, teacher)
    assert out.cross_entropy.item() == pytest.approx((math.log(3 / 2) + math.log(4 / 3)) / 2)
    # q = (1/4, 3/4); p = (2, 3, 1) / 6
    assert out.score_transfer.item() == pytest.approx(-(math.log(2 / 6) / 4 + 3 * math.log(3 / 6) / 4))
    assert out.teacher_entropy.item() == pytest.approx(-(math.log(0.25) / 4 + 3 * math.log(0.75) / 4))


def test_single_candidate_transfer_is_plain_cross_entropy_of_it():
    scores = torch.randn(3, 6, dtype=torch.float64)
    positives = torch.zeros(3, 6, dtype=torch.bool)
    positives[:, 0] = True
    out = G2RLoss(0.4)(scores, positives, ~positives, torch.full((3, 6), -1.5, dtype=torch.float64))
    assert out.score_transfer.item() == pytest.approx(out.cross_entropy.item())
    assert out.teacher_entropy.item() == 0


def test_more_than_ten_candidates_of_one_context_all_count():
    scores = torch.randn(1, 24, dtype=torch.float64)
    candidates = torch.arange(24).unsqueeze(0) < 16
    teacher = torch.randn(1, 24, dtype=torch.float64)
    q = teacher_distribution(teacher, candidates, 1.0)
    assert q.sum().item() == pytest.approx(1)
    assert (q > 0).sum() == 16
    expected = literal_loss(*(x.tolist() for x in (scores, candidates, candidates, ~candidates, teacher)), 0.1, 1.0)[0]
    assert G2RLoss(0.1)(scores, candidates, ~candidates, teacher).total.item() == pytest.approx(expected)


def test_row_without_negatives_has_no_loss_and_no_gradient():
    scores = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    positives = torch.tensor([[True, False, False, False], [True, False, False, False]])
    negatives = torch.tensor([[False, False, False, False], [False, True, True, False]])
    loss = response_selection(scores, positives, negatives)
    alone = response_selection(scores[1:], positives[1:], negatives[1:])
    loss.backward()
    assert loss.item() == pytest.approx(alone.item() / 2)
    assert scores.grad is not None
    assert torch.equal(scores.grad[0], torch.zeros(4, dtype=torch.float64))
    assert torch.isfinite(scores.grad).all()


def test_what_is_in_no_mask_gets_no_gradient_even_where_it_is_not_finite():
    scores = torch.randn(2, 5, dtype=torch.float64)
    scores[:, 4] = torch.inf
    scores.requires_grad_(True)
    positives = torch.tensor([[True, False, False, False, False]] * 2)
    negatives = torch.tensor([[False, True, True, False, False]] * 2)
    teacher = torch.full((2, 5), torch.nan, dtype=torch.float64)
    teacher[:, 0] = -1.0
    G2RLoss(0.2)(scores, positives, negatives, teacher).total.backward()
    assert scores.grad is not None
    assert torch.equal(scores.grad[:, 3:], torch.zeros(2, 2, dtype=torch.float64))
    assert torch.isfinite(scores.grad).all()


def test_gradient_is_the_numerical_one():
    scores = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    candidates = torch.rand(3, 7) < 0.5
    candidates[:, 0] = True
    teacher = torch.randn(3, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: G2RLoss(0.3, 0.5)(s, candidates, ~candidates, teacher).total, scores)


def test_summed_log_likelihoods_do_not_underflow_in_float32():
    teacher = torch.tensor([[-900.0, -901.0, -1500.0]])
    q = teacher_distribution(teacher, torch.ones(1, 3, dtype=torch.bool), 1.0)
    assert q[0, 0].item() == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-6)
    ce, entropy = score_transfer(
        torch.zeros(1, 3), teacher, torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 3).bool(), 1.0
    )
    assert torch.isfinite(ce)
    assert torch.isfinite(entropy)


def test_alpha_zero_logs_the_transfer_without_letting_it_touch_the_gradient():
    scores = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    positives = torch.tensor([[True, True, False, False]] * 2)
    teacher = torch.randn(2, 4, dtype=torch.float64)
    with_teacher = G2RLoss(0.0)(scores, positives, ~positives, teacher)
    without = G2RLoss(0.0)(scores, positives, ~positives)
    assert with_teacher.score_transfer > 0
    assert with_teacher.total.item() == without.total.item()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.5}, "between 0 and 1"),
        ({"temperature": 0.0}, "larger than 0"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        G2RLoss(**{"alpha": 0.1, "temperature": 1.0, **change})


def test_inputs_that_do_not_fit_are_refused():
    scores, positives = torch.zeros(2, 3), torch.tensor([[True, False, False]] * 2)
    with pytest.raises(ValueError, match="needs teacher scores"):
        G2RLoss(0.1)(scores, positives, ~positives)
    with pytest.raises(ValueError, match="bool mask of shape"):
        G2RLoss(0.0)(scores, positives[:, :2], ~positives)
    with pytest.raises(ValueError, match="both candidate and negative"):
        G2RLoss(0.0)(scores, positives, torch.ones_like(positives))
    with pytest.raises(ValueError, match="must be a candidate"):
        G2RLoss(0.0)(scores, positives, ~positives, None, torch.zeros_like(positives))
    teacher = torch.zeros(2, 3)
    teacher[1, 0] = torch.nan
    with pytest.raises(ValueError, match="row 1 is NaN"):
        G2RLoss(0.1)(scores, positives, ~positives, teacher)
