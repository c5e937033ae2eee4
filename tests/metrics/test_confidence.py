import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from g2r_lightning.metrics.confidence import cluster_bootstrap, paired_bootstrap


def clustered(rng: np.random.Generator, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Turns whose dialogue matters as much as themselves: 1 to 7 a dialogue, true mean 0."""
    names = np.repeat(np.arange(clusters), rng.integers(1, 8, clusters))
    return rng.normal(size=clusters)[names] + rng.normal(size=len(names)), names


def test_singleton_clusters_equal_scipy():
    values = np.random.default_rng(0).exponential(size=80)
    ours = cluster_bootstrap(values, np.arange(80), samples=20_000, level=0.9)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=0.9, method="percentile", batch=2000, rng=1
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)
    assert (ours.estimate, ours.clusters) == (pytest.approx(values.mean()), 80)


def test_unequal_clusters_equal_scipy_on_the_ratio_of_sums():
    values, names = clustered(np.random.default_rng(3), 60)
    sums, sizes = np.bincount(names, weights=values), np.bincount(names)
    theirs = stats.bootstrap(
        (sums, sizes),
        lambda s, n, axis: s.sum(axis) / n.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        batch=2000,
        rng=1,
    ).confidence_interval
    ours = cluster_bootstrap(values, names, samples=20_000)
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Turns taken for independent (each its own cluster) would cover it far less often."""
    rng = np.random.default_rng(5)
    by_dialogue, by_turn = [], []
    for _ in range(300):
        values, names = clustered(rng, 60)
        for found, clusters in ((by_dialogue, names), (by_turn, np.arange(len(names)))):
            interval = cluster_bootstrap(values, clusters, samples=300)
            found.append(interval.low <= 0 <= interval.high)
    assert 0.90 <= np.mean(by_dialogue) <= 0.98
    assert np.mean(by_turn) < 0.85


def test_two_clusters_by_hand():
    """Draws of two from {0 0, 1}: both (mean 1/3, half of the draws), the first twice (0), the second twice (1)."""
    interval = cluster_bootstrap([0, 0, 1], ["a", "a", "b"], samples=4000, level=0.2)
    assert interval.estimate == pytest.approx(1 / 3)
    assert (interval.low, interval.high) == pytest.approx((1 / 3, 1 / 3))
    wide = cluster_bootstrap([0, 0, 1], ["a", "a", "b"], samples=4000, level=0.9)
    assert (wide.low, wide.high, wide.level, wide.samples, wide.clusters) == (0.0, 1.0, 0.9, 4000, 2)


@given(order=st.permutations(range(12)))
@settings(max_examples=25, deadline=None)
def test_order_of_examples_does_not_matter(order):
    values, names = np.arange(12.0) % 5, np.arange(12) // 3
    moved = cluster_bootstrap(values[list(order)], names[list(order)], samples=50)
    kept = cluster_bootstrap(values, names, samples=50)
    assert (moved.low, moved.high, moved.estimate) == pytest.approx((kept.low, kept.high, kept.estimate))


def test_a_seed_gives_one_interval_and_another_seed_another():
    values, names = clustered(np.random.default_rng(0), 30)
    assert cluster_bootstrap(values, names, samples=99) == cluster_bootstrap(values, names, samples=99)
    assert cluster_bootstrap(values, names, samples=99) != cluster_bootstrap(values, names, samples=99, seed=1)


def test_chunks_of_draws_are_all_drawn():
    """More cells than are held at a time: the interval is as wide as theory says."""
    values = np.random.default_rng(0).normal(size=30_000)
    interval = cluster_bootstrap(values, np.arange(30_000), samples=400)
    expected = 2 * 1.96 * values.std() / math.sqrt(30_000)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.2)


def test_pairing_removes_what_both_systems_share():
    rng = np.random.default_rng(1)
    values, names = clustered(rng, 100)
    better = values + 0.1 + 0.05 * rng.normal(size=len(values))
    paired = paired_bootstrap(values, better, names, samples=2000)
    assert paired.estimate == pytest.approx((better - values).mean())
    assert 0.05 < paired.low < 0.1 < paired.high + 0.02 < 0.15
    alone = cluster_bootstrap(better, names, samples=2000)
    assert alone.high - alone.low > 10 * (paired.high - paired.low)
    mirrored = paired_bootstrap(better, values, names, samples=2000)
    assert (mirrored.low, mirrored.high) == pytest.approx((-paired.high, -paired.low), abs=1e-3)


def test_equal_systems_differ_by_nothing():
    values, names = clustered(np.random.default_rng(2), 20)
    interval = paired_bootstrap(values, values, names, samples=100)
    assert (interval.low, interval.estimate, interval.high) == (0.0, 0.0, 0.0)


def test_one_dialogue_tells_nothing_of_the_spread():
    interval = cluster_bootstrap([0.0, 1.0], ["a", "a"])
    assert interval.estimate == 0.5
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_tensors_are_welcome():
    values = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    assert cluster_bootstrap(values, torch.tensor([0, 0, 1]), samples=10).estimate == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("values", "clusters", "message"),
    [
        ([], [], "at least one"),
        ([1.0, math.nan], [0, 1], r"values\[1\] is NaN"),
        ([1.0, 2.0], [0], "clusters has shape"),
        ([[1.0]], [0], "one value an example"),
    ],
)
def test_bad_values(values, clusters, message):
    with pytest.raises(ValueError, match=message):
        cluster_bootstrap(values, clusters)


def test_bad_settings():
    for samples, level in ((0, 0.95), (10, 1.0), (10, 0.0)):
        with pytest.raises(ValueError, match="at least 1 sample and a level between"):
            cluster_bootstrap([1.0], [0], samples=samples, level=level)
    with pytest.raises(ValueError, match="a has 2 values, b 1"):
        paired_bootstrap([1.0, 2.0], [1.0], [0, 1])
