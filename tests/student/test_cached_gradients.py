"""Chunks hold every text once; cached gradients are the plain ones, dropout included, and remember little."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from g2r_lightning.losses import G2RLoss
from g2r_lightning.student import BiEncoder, PolyEncoder
from g2r_lightning.student.encoders import StudentEncoder, length_chunks
from tiny import WORDS, write_encoder

ENCODERS = [(BiEncoder, {}), (PolyEncoder, {"codes": 4}), (PolyEncoder, {"codes": 4, "code_type": "first"})]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_encoder(tmp_path_factory.mktemp("encoder"), WORDS))


@given(st.lists(st.integers(0, 40), max_size=60), st.none() | st.integers(1, 200))
def test_chunks_hold_every_text_once_within_the_budget(lengths: list[int], budget: int | None) -> None:
    chunks = list(length_chunks(torch.tensor(lengths, dtype=torch.int64), budget))
    assert sorted(row for chunk in chunks for row in chunk.rows.tolist()) == list(range(len(lengths)))
    for rows, width in chunks:
        assert width == max(1, max(lengths[row] for row in rows.tolist()))
        assert budget is None or len(rows) == 1 or len(rows) * width <= budget


def texts(count: int, longest: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return random ids (count, longest) and their mask, every length from 3 on."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 40, (count, longest), generator=draw)
    mask = (torch.arange(longest) < torch.randint(3, longest + 1, (count, 1), generator=draw)).long()
    return ids * mask, mask


def step(encoder: StudentEncoder, seed: int = 7) -> tuple[Tensor, dict[str, Tensor]]:
    """Return loss and gradients of one step with cross-entropy and score transfer."""
    draw = torch.Generator().manual_seed(seed)
    scores = None
    encoder.zero_grad()
    torch.manual_seed(seed)
    scores = encoder(*texts(6, 20, 1), *texts(15, 9, 2))
    candidates = torch.zeros(6, 15, dtype=torch.bool)
    candidates[torch.arange(6).repeat(2), torch.arange(12)] = True
    teacher = torch.randn(6, 15, generator=draw, dtype=scores.dtype)
    loss = G2RLoss(0.3)(scores, candidates, ~candidates, teacher).total
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}


def build(kind: type[StudentEncoder], folder: str, **options: Any) -> StudentEncoder:
    torch.manual_seed(0)
    return kind(folder, token_budget=40, **options).double().train()


@pytest.mark.parametrize(("kind", "options"), ENCODERS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("shared", [True, False])
def test_cached_gradients_are_the_plain_ones(
    folder: str, kind: type[StudentEncoder], options: dict[str, Any], dropout: float, shared: bool
) -> None:
    settings = {**options, "dropout": dropout, "shared": shared}
    loss, plain = step(build(kind, folder, **settings))
    cached_loss, cached = step(build(kind, folder, cached_gradients=True, **settings))
    assert torch.equal(loss, cached_loss)
    assert plain.keys() == cached.keys()
    assert len(plain) > 20
    for name, gradient in plain.items():
        torch.testing.assert_close(cached[name], gradient, rtol=1e-10, atol=1e-12, msg=name)
    if dropout:  # the comparison sees dropout: another draw gives other gradients
        other = step(build(kind, folder, cached_gradients=True, **settings), seed=8)[1]
        assert any(not torch.allclose(other[name], plain[name], rtol=1e-3) for name in plain)


@pytest.mark.parametrize(("kind", "options"), ENCODERS)
def test_cached_gradients_hold_for_one_whole_batch_too(
    folder: str, kind: type[StudentEncoder], options: dict[str, Any]
) -> None:
    chunked = build(kind, folder, dropout=0.0, cached_gradients=True, **options)
    whole = build(kind, folder, dropout=0.0, **options)
    whole.token_budget = None
    for (name, one), other in zip(step(chunked)[1].items(), step(whole)[1].values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10, msg=name)


def kept_for_backward(encoder: StudentEncoder) -> int:
    """Return how many bytes of tensors a step's graph keeps until its backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    parameters = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scores = encoder(*texts(64, 20, 1), *texts(64, 9, 2))
    del scores
    return sum(size for where, size in kept.items() if where not in parameters)


@pytest.mark.parametrize(("kind", "options"), ENCODERS)
def test_cached_gradients_remember_little(folder: str, kind: type[StudentEncoder], options: dict[str, Any]) -> None:
    plain = kept_for_backward(build(kind, folder, **options))
    cached = kept_for_backward(build(kind, folder, cached_gradients=True, **options))
    assert cached < 0.15 * plain, (cached, plain)


def test_nothing_is_run_twice_without_gradients(folder: str) -> None:
    encoder = build(BiEncoder, folder, cached_gradients=True)
    runs = []
    encoder.response_tower.register_forward_hook(lambda *_: runs.append(1))
    with torch.no_grad():
        encoder(*texts(2, 8, 1), *texts(2, 8, 2))
    assert len(runs) == 2


@pytest.mark.parametrize(
    "backend",
    ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)],  # the latter takes minutes to compile
)
def test_compiled_towers_score_alike_and_keep_their_names(folder: str, backend: str) -> None:
    plain, compiled = (BiEncoder(folder, dropout=0.0, compile_backend=chosen) for chosen in (None, backend))
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    compiled.load_state_dict(plain.state_dict())
    for count, longest in ((3, 8), (5, 13)):
        batch = (*texts(count, longest, 1), *texts(count, longest, 2))
        torch.testing.assert_close(compiled(*batch), plain(*batch), rtol=1e-4, atol=1e-5)
    compiled(*batch).sum().backward()
    plain(*batch).sum().backward()
    for (name, one), other in zip(compiled.named_parameters(), plain.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_an_unknown_backend_is_refused(folder: str) -> None:
    with pytest.raises(ValueError, match=r"compile_backend=induktor: .*inductor"):
        BiEncoder(folder, compile_backend="induktor")


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"dropout": 1.0}, r"encoder\.dropout=1\.0: from 0 to below 1"),
        ({"dropout": float("nan")}, r"encoder\.dropout=nan"),
        ({"output_scale": 0.0}, r"encoder\.output_scale=0\.0: a finite number other than 0"),
        ({"output_scale": float("inf")}, r"encoder\.output_scale=inf"),
        ({"token_budget": 0}, r"encoder\.token_budget=0: at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(folder: str, setting: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        BiEncoder(folder, **setting)
