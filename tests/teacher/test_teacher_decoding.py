"""Drawing tokens: the distribution is transformers' own after the same filters, and rows do not see each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, TypicalLogitsWarper

from g2r_lightning.teacher.decoding import BlockedNGrams, draw, followers, uniforms
from g2r_lightning.teacher.sampling import Sampling

VOCABULARY = 3000  # more than any part of it that the nucleus looks at

samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 400]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 0.999, 1.0]),
    typical_p=st.sampled_from([1.0, 1.0, 0.6]),
)


def filtered(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return the distribution by transformers' warpers, in their order."""
    warpers = [TemperatureLogitsWarper(sampling.temperature)]
    warpers += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    warpers += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    warpers += [TypicalLogitsWarper(mass=sampling.typical_p)] if sampling.typical_p < 1 else []
    for warper in warpers:
        logits = warper(torch.empty(0, dtype=torch.int64), logits)
    return torch.softmax(logits, dim=1)


@settings(max_examples=40)
@given(samplings, st.integers(0, 10**6), st.sampled_from([0.5, 1.5, 4.0]))
def test_shares_are_those_of_transformers(sampling: Sampling, seed: int, spread: float) -> None:
    """The numbers 0, 1/n, 2/n, ... fall upon each token as often as its probability says, in vocabulary order."""
    logits = spread * torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    count = 1000
    numbers = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    chosen = draw(logits.expand(count, -1), numbers, sampling)
    assert bool((chosen[1:] >= chosen[:-1]).all())
    shares = torch.bincount(chosen, minlength=VOCABULARY) / count
    assert (shares - filtered(logits, sampling)[0]).abs().max() <= 1.5 / count


@pytest.mark.parametrize(("spread", "least", "most"), [(4.0, 0, 256), (1.5, 256, 2048), (0.3, 2048, VOCABULARY)])
def test_nuclei_of_every_width_have_the_shares_of_transformers(spread: float, least: int, most: int) -> None:
    """Each width is found by another part of the code: among 256 tokens, among 2,048, among all."""
    sampling = Sampling(top_p=0.9)
    logits = spread * torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = filtered(logits, sampling)[0]
    assert least < int((expected > 0).sum()) <= most
    numbers = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    chosen = draw(logits.expand(len(numbers), -1), numbers, sampling)
    shares = torch.bincount(chosen, minlength=VOCABULARY) / len(numbers)
    assert (shares - expected).abs().max() <= 1.5 / len(numbers)
    assert bool((expected[chosen] > 0).all())


@settings(max_examples=40)
@given(samplings, st.integers(0, 10**6))
def test_rows_do_not_see_each_other(sampling: Sampling, seed: int) -> None:
    maker = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, VOCABULARY, generator=maker) * torch.tensor([0.1, 1.0, 3.0, 9.0, 2.0])[:, None]
    numbers = torch.rand(5, generator=maker, dtype=torch.float64)
    together = draw(logits, numbers, sampling)
    assert together.tolist() == [int(draw(logits[i : i + 1], numbers[i : i + 1], sampling)) for i in range(5)]


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
@pytest.mark.parametrize(
    "sampling", [Sampling(top_p=1.0), Sampling(top_p=0.7), Sampling(top_k=2), Sampling(typical_p=0.9)]
)
def test_banned_tokens_are_never_drawn_at_the_borders(number: float, sampling: Sampling) -> None:
    logits = torch.tensor([[-torch.inf, 1.0, -torch.inf, 1.1, -torch.inf]])
    assert int(draw(logits, torch.tensor([number], dtype=torch.float64), sampling)) in (1, 3)


def test_numbers_belong_to_seed_example_and_reply() -> None:
    numbers = uniforms(1, ["a:b:1", "c:d:2"], 3, 7)
    assert numbers.shape == (6, 7)
    assert torch.equal(uniforms(1, ["c:d:2"], 2, 5), numbers[3:5, :5])
    assert len(np.unique(numbers)) == 42
    assert not torch.equal(uniforms(2, ["a:b:1"], 3, 7), numbers[:3])
    many = uniforms(0, [f"x:{i}:1" for i in range(200)], 5, 20)
    assert abs(float(many.mean()) - 0.5) < 0.01
    assert 0 <= float(many.min()) < 0.001 < 0.999 < float(many.max()) < 1


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 4))
def test_followers_are_the_last_tokens_of_all_ngrams(tokens: list[int], size: int) -> None:
    ngrams = {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)}
    found = followers(tokens, size)
    assert {(*before, last) for before, after in found.items() for last in after} == ngrams


@given(
    st.lists(st.integers(0, 2), max_size=9),
    st.lists(st.integers(0, 2), max_size=9),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_banned_are_exactly_the_repeating_tokens(context: list[int], reply: list[int], own: int, other: int) -> None:
    blocked = BlockedNGrams(Sampling(no_repeat_ngram=own, no_context_ngram=other), context)
    grown: list[int] = []
    for token in [*reply, 0]:
        banned = blocked.next_tokens(grown)
        for choice in range(3):
            after = [*grown, choice]
            last_own, last_other = tuple(after[-own:] if own else ()), tuple(after[-other:] if other else ())
            repeats = (
                own and len(after) >= own and last_own in list(zip(*(grown[i:] for i in range(own)), strict=False))
            )
            copies = (
                other
                and len(after) >= other
                and last_other in list(zip(*(context[i:] for i in range(other)), strict=False))
            )
            assert (choice in banned) == bool(repeats or copies)
        grown.append(token)
