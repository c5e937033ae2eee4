"""Gradients against numerical ones (``torch.autograd.gradcheck``): losses, poly-encoder, a step in chunks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck

from g2r_lightning.losses import G2RLoss, response_selection, score_transfer
from g2r_lightning.student import BiEncoder, PolyEncoder
from g2r_lightning.student.poly_encoder import attended_scores


def step(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return scores, candidates, negatives and teacher scores; rows without negatives among them."""
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, columns, generator=draw, dtype=torch.float64, requires_grad=True)
    candidates = torch.rand(rows, columns, generator=draw) < 0.5
    candidates[:, 0] = True
    negatives = ~candidates & (torch.rand(rows, columns, generator=draw) < 0.7)
    teacher = torch.randn(rows, columns, generator=draw, dtype=torch.float64).masked_fill(~candidates, torch.nan)
    return scores, candidates, negatives, teacher


sizes = {"rows": st.integers(1, 4), "columns": st.integers(1, 7), "seed": st.integers(0, 10_000)}


@given(**sizes, alpha=st.sampled_from([0.0, 0.1, 1.0]), temperature=st.sampled_from([0.3, 1.0, 5.0]))
@settings(max_examples=25)
def test_of_the_losses(rows, columns, seed, alpha, temperature):
    scores, candidates, negatives, teacher = step(rows, columns, seed)
    assert gradcheck(lambda s: response_selection(s, candidates, negatives), scores)
    assert gradcheck(lambda s: score_transfer(s, teacher, candidates, negatives, temperature)[0], scores)
    loss = G2RLoss(alpha, temperature)
    assert gradcheck(lambda s: loss(s, candidates, negatives, teacher).total, scores)


@given(contexts=st.integers(1, 3), codes=st.integers(1, 4), responses=st.integers(1, 4), seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_of_the_poly_encoders_score(contexts, codes, responses, seed):
    draw = torch.Generator().manual_seed(seed)
    y = torch.randn(contexts, codes, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    r = torch.randn(responses, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda a, b: attended_scores(a, b, 4), (y, r))


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(("kind", "options"), [(BiEncoder, {"normalise": True}), (PolyEncoder, {"codes": 3})])
def test_of_a_whole_step_in_chunks(tiny_encoder_folder, kind: Any, options: dict[str, Any], cached: bool):
    """The gradient of the step's loss with respect to a layer's bias, chunks, padding and recomputation included."""
    torch.manual_seed(0)
    encoder = kind(str(tiny_encoder_folder), token_budget=12, dropout=0.0, cached_gradients=cached, **options).double()
    name, bias = next((n, p) for n, p in encoder.named_parameters() if n.endswith("attention.output.dense.bias"))
    contexts, responses = texts(3, 6, 1), texts(5, 5, 2)
    candidates = torch.eye(3, 5).bool()
    teacher = torch.randn(3, 5, dtype=torch.float64)

    def loss(value: Tensor) -> Tensor:
        """Return the loss of the step with another bias."""
        scores = torch.func.functional_call(encoder, {name: value}, (*contexts, *responses))
        return G2RLoss(0.3)(scores, candidates, ~candidates, teacher).total

    assert gradcheck(loss, bias.detach().clone().requires_grad_(True), atol=1e-6, rtol=1e-4)
    assert isinstance(encoder, nn.Module)


def texts(count: int, longest: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return random ids (count, longest) and their mask, of several lengths."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 40, (count, longest), generator=draw)
    mask = (torch.arange(longest) < torch.randint(2, longest + 1, (count, 1), generator=draw)).long()
    return ids * mask, mask
