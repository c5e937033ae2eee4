"""Which examples make a step: whole epochs, fair shares, and the same rest after a restart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from g2r_lightning.data.samplers import ResumableLoader, StepKey, StepSampler


class Keys(Dataset[StepKey]):
    """Hands out the key itself; batches of other types are not this file's matter."""

    def __getitem__(self, key: StepKey) -> StepKey:
        return key


def epoch_of(sampler: StepSampler, epoch: int = 0) -> list[StepKey]:
    sampler.set_epoch(epoch)
    return list(sampler)


@settings(max_examples=120, deadline=None)
@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 3), st.booleans(), st.integers(0, 3))
def test_an_epoch_holds_every_example_once_and_ranks_share_each_batch(examples, size, world, grouped, epoch):
    lengths = np.arange(examples)[::-1] % 5 if grouped else None
    keys = [epoch_of(StepSampler(examples, size, 1, rank, world, lengths), epoch) for rank in range(world)]
    assert len({len(own) for own in keys}) == 1  # as many steps for each rank, or the ranks would wait for ever
    seen: list[int] = []
    for step, together in enumerate(zip(*keys, strict=True)):
        assert {(key.epoch, key.step) for key in together} == {(epoch, step)}
        assert len({key.examples for key in together}) == 1
        shares = [key.local for key in together]
        assert all(0 < len(share) <= size for share in shares)
        assert sorted(example for share in shares for example in share) == sorted(together[0].examples)
        seen += together[0].examples
    dropped = examples - len(seen)
    assert len(set(seen)) == len(seen)
    assert dropped < world  # only a last step that would leave a rank without work is dropped
    assert set(seen) <= set(range(examples))
    assert len(keys[0]) == len(StepSampler(examples, size, 1, 0, world, lengths))


@pytest.mark.parametrize(("drop_short", "steps"), [(True, 3), (False, 4)])
def test_a_last_step_may_have_fewer_examples_than_there_are_processes(drop_short, steps):
    keys = [epoch_of(StepSampler(20, 2, 1, rank, 3, drop_short=drop_short)) for rank in range(3)]
    assert [len(own) for own in keys] == [steps] * 3
    assert len({example for key in keys[0] for example in key.examples}) == (18 if drop_short else 20)
    assert [len(own[-1].local) for own in keys] == ([2, 2, 2] if drop_short else [1, 1, 0])


@pytest.mark.parametrize("lengths", [None, np.arange(50) % 7])
def test_shuffles_differ_by_epoch_and_seed_and_by_nothing_else(lengths):
    first = epoch_of(StepSampler(50, 4, seed=1, lengths=lengths), 0)
    again = StepSampler(50, 4, seed=1, lengths=lengths)
    epoch_of(again, 5)
    assert epoch_of(again, 0) == first
    others = [epoch_of(again, 1), epoch_of(StepSampler(50, 4, seed=2, lengths=lengths), 0)]
    for other in others:
        assert [key.examples for key in other] != [key.examples for key in first]
        assert sorted(e for key in other for e in key.examples) == list(range(50))


def test_length_grouping_saves_padding_and_still_shuffles():
    lengths = np.random.default_rng(0).integers(1, 100, 403)

    def padded(keys: list[StepKey]) -> int:
        return sum(max(lengths[list(key.examples)]) * len(key.examples) for key in keys)

    grouped = epoch_of(StepSampler(403, 8, 1, lengths=lengths))
    assert padded(grouped) < 0.7 * padded(epoch_of(StepSampler(403, 8, 1)))
    longest = [max(lengths[list(key.examples)]) for key in grouped]
    assert longest != sorted(longest)
    assert len(grouped[-1].examples) == 3  # the step that is not full comes last


@pytest.mark.filterwarnings("ignore:.*create 2 worker processes")  # a test may have one core
@pytest.mark.parametrize(("taken", "workers"), [(0, 0), (1, 0), (4, 0), (6, 0), (7, 0), (4, 2)])
def test_a_resumed_epoch_has_the_steps_that_are_left(taken, workers):
    def loader() -> ResumableLoader:
        return ResumableLoader(Keys(), StepSampler(20, 3, seed=1), workers)

    whole = loader()
    whole.sampler.set_epoch(2)
    steps = iter(whole)
    before = [next(steps) for _ in range(taken)]
    state = whole.state_dict()
    rest = list(steps)
    assert len(before) + len(rest) == 7

    resumed = loader()
    resumed.load_state_dict(state)
    resumed.sampler.set_epoch(2)
    assert list(resumed) == rest
    resumed.sampler.set_epoch(3)
    assert [key.step for key in resumed] == list(range(7))  # the next epoch is whole


def test_a_position_belongs_to_its_epoch():
    """After ``limit_train_batches`` an epoch ends before its last step; the next one begins at its first."""
    loader = ResumableLoader(Keys(), StepSampler(20, 3, seed=1))
    loader.load_state_dict({"epoch": 0, "taken": 4})
    loader.sampler.set_epoch(1)
    assert [key.step for key in loader] == list(range(7))


def test_a_saved_position_of_a_resumed_epoch_counts_from_its_start():
    loader = ResumableLoader(Keys(), StepSampler(20, 3, seed=1))
    loader.load_state_dict({"epoch": 0, "taken": 2})
    steps = iter(loader)
    next(steps)
    assert loader.state_dict() == {"epoch": 0, "taken": 3}


def test_a_pass_leaves_the_global_generator_alone():
    """Else dropout after a restart, which is one pass more, would differ from an uninterrupted run's."""
    before = torch.get_rng_state()
    list(ResumableLoader(Keys(), StepSampler(20, 3, seed=1)))
    assert torch.equal(torch.get_rng_state(), before)
