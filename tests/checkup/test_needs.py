"""The estimate of a training's memory, against what autograd saves and what a checkpoint holds."""

from __future__ import annotations

import pytest
import torch

from g2r_lightning.checkup.needs import architecture, kept_bytes, student_need
from g2r_lightning.student import BiEncoder
from tiny import WORDS, write_encoder


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return str(write_encoder(tmp_path_factory.mktemp("wide"), WORDS, hidden=64, layers=3))


def saved_bytes(encoder: BiEncoder, texts: int, tokens: int) -> int:
    """Bytes of all tensors that the backward pass holds, weights apart."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in encoder.parameters()}
    storages: dict[int, int] = {}
    held = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)  # alive, so that no address is used twice
        return tensor

    ids = torch.randint(5, 20, (texts, tokens))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        vectors = encoder.train().encode_responses(ids, torch.ones_like(ids))
    assert vectors.requires_grad
    return sum(storages.values())


@pytest.mark.parametrize(("texts", "tokens"), [(16, 16), (4, 64)])
def test_activations_are_what_autograd_saves(wide, texts, tokens):
    encoder = BiEncoder(wide, token_budget=None)
    told = kept_bytes(architecture(wide), texts, tokens)
    assert saved_bytes(encoder, texts, tokens) == pytest.approx(told, rel=0.3)


def test_parameters_are_counted_without_loading_weights(wide):
    tower = BiEncoder(wide)
    own = sum(parameter.numel() for parameter in tower.parameters())
    shape = architecture(wide)
    assert own <= shape.parameters <= 1.2 * own  # the pooler is counted, and dropped
    one = student_need(shape, {}, {}, {})
    two = student_need(shape, {"shared": False}, {}, {})
    assert two.state == 2 * one.state
    assert one.checkpoint == 12 * shape.parameters


def test_a_step_grows_with_the_batch_unless_gradients_are_cached(wide):
    shape = architecture(wide)

    def activations(batch: int, **encoder) -> int:
        return student_need(shape, encoder, {"max_context_tokens": 32}, {"batch_size": batch}).activations

    assert activations(96) > 1.5 * activations(48)
    cached = activations(48, cached_gradients=True, token_budget=512)
    assert cached == activations(96, cached_gradients=True, token_budget=512) < activations(48) / 10
