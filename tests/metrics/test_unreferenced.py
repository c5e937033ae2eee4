"""The metric's network: one pass by hand, padding and order that change nothing, the projection against an SVD."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.metrics.unreferenced import (
    UnreferencedMetric,
    balanced_cross_entropy,
    principal_projection,
    side_counts,
)


def metric(dimension: int = 6, projection: int = 4, memory: int = 5, layers: int = 2) -> UnreferencedMetric:
    torch.manual_seed(0)
    return UnreferencedMetric(dimension, projection, memory, layers, hidden=7).double().eval()


def lstm_layer(network: torch.nn.LSTM, layer: int, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """One layer of an LSTM, written out (Hochreiter and Schmidhuber 1997, with forget gates)."""
    weights = {name: getattr(network, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    hidden = cell = torch.zeros(network.hidden_size, dtype=torch.float64)
    outputs = []
    for value in inputs:
        gates = weights["weight_ih"] @ value + weights["bias_ih"] + weights["weight_hh"] @ hidden + weights["bias_hh"]
        enter, forget, new, leave = gates.chunk(4)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        outputs.append(hidden)
    return outputs


def test_a_score_by_hand():
    """Against the formula of MaUdE (REFERENCE of the method, section 7), one pair, nothing batched."""
    network = metric()
    context, response = torch.randn(3, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    told = [network.project.weight @ turn + network.project.bias for turn in context]
    states = lstm_layer(network.reader, 1, lstm_layer(network.reader, 0, told))
    h = network.match.weight @ torch.stack(states).max(dim=0).values
    r = network.project.weight @ response + network.project.bias
    first, _, _, second = network.classifier
    hidden = (first.weight @ torch.cat([h, r, (h - r).abs(), h * r]) + first.bias).clamp(min=0)
    by_hand = (second.weight @ hidden + second.bias).item()
    found = network(context[None], torch.tensor([3]), response[None], torch.tensor([0]))
    assert found.item() == pytest.approx(by_hand, abs=1e-12)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 3), st.integers(0, 99))
def test_padding_and_batch_change_nothing(lengths, more, seed):
    network, draw = metric(), torch.Generator().manual_seed(seed)
    contexts = [torch.randn(n, 6, generator=draw, dtype=torch.float64) for n in lengths]
    responses = torch.randn(2 * len(lengths), 6, generator=draw, dtype=torch.float64)
    owners = torch.randint(len(lengths), (len(responses),), generator=draw)
    padded = torch.full((len(lengths), max(lengths) + more, 6), 1e3, dtype=torch.float64)
    for row, context in enumerate(contexts):
        padded[row, : len(context)] = context
    together = network(padded, torch.tensor(lengths), responses, owners)
    for row, owner in enumerate(owners.tolist()):
        alone = network(
            contexts[owner][None], torch.tensor([lengths[owner]]), responses[row : row + 1], torch.tensor([0])
        )
        assert alone.item() == pytest.approx(together[row].item(), abs=1e-12)


def test_the_order_of_a_context_matters_and_every_utterance_does():
    network = metric()
    context, response = torch.randn(1, 4, 6, dtype=torch.float64), torch.randn(1, 6, dtype=torch.float64)
    one = torch.tensor([0])
    score = network(context, torch.tensor([4]), response, one)
    assert not torch.allclose(score, network(context.flip(1), torch.tensor([4]), response, one))
    assert not torch.allclose(score, network(context[:, 1:], torch.tensor([3]), response, one))


def test_the_projection_is_that_of_a_singular_value_decomposition():
    vectors = torch.randn(300, 8) * torch.arange(1, 9) + torch.arange(8)
    weight, bias = principal_projection(vectors, 3)
    projected = vectors @ weight.T + bias
    centred = vectors.double() - vectors.double().mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    reference = centred @ directions[:3].T
    factor = math.sqrt(3 / reference.pow(2).sum(dim=1).mean().item())
    torch.testing.assert_close(projected.abs(), (factor * reference).abs().float(), atol=1e-4, rtol=1e-4)
    assert projected.pow(2).sum(dim=1).mean().item() == pytest.approx(3, abs=1e-4)
    again, _ = principal_projection(vectors.flip(0), 3)
    torch.testing.assert_close(weight, again, atol=1e-5, rtol=1e-5)  # signs are fixed
    with pytest.raises(ValueError, match="9 principal components of 300 vectors of 8 dimensions"):
        principal_projection(vectors, 9)
    network = UnreferencedMetric(8, projection=3)
    network.start_from(vectors)
    torch.testing.assert_close(network.project(vectors).detach(), projected)


def test_true_and_false_count_half_each():
    logits = torch.tensor([2.0, -1.0, 0.5, 0.0])
    true = torch.tensor([True, False, False, False])
    by_hand = (math.log1p(math.exp(-2)) + sum(math.log1p(math.exp(x)) for x in (-1, 0.5, 0)) / 3) / 2
    assert balanced_cross_entropy(logits, true).item() == pytest.approx(by_hand, abs=1e-6)
    assert balanced_cross_entropy(logits[:1], true[:1]).item() == pytest.approx(math.log1p(math.exp(-2)), abs=1e-6)
    twice = balanced_cross_entropy(torch.cat([logits, logits[1:]]), torch.cat([true, true[1:]]))
    assert twice.item() == pytest.approx(by_hand, abs=1e-6)


def test_parts_of_a_step_add_up_to_the_whole():
    logits, true = torch.randn(7), torch.tensor([True, False, False, True, True, False, False])
    counts = side_counts(true) / 2
    parts = [balanced_cross_entropy(logits[part], true[part], counts) for part in (slice(0, 3), slice(3, 7))]
    assert (sum(parts) / 2).item() == pytest.approx(balanced_cross_entropy(logits, true).item(), abs=1e-6)
