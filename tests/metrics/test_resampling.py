"""Many figures on the same draws, seeds, corrected p-values: held against SciPy, by hand, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from g2r_lightning.metrics.diversity import distinct_n
from g2r_lightning.metrics.resampling import Sample, Statistic, holm, resampled, seed_error


def statistic(values: np.ndarray, codes: np.ndarray) -> Statistic:
    return Statistic.mean(values, codes, np.bincount(codes).astype(float))


def compared(
    first: list[np.ndarray], second: list[np.ndarray], codes: np.ndarray, samples: int = 1000, **more
) -> Sample:
    """A sample of two systems, each a list of runs' values."""
    made = [statistic(values, codes) for values in (*first, *second)]
    draws = resampled(made, samples, more.get("seed", 0))
    values = np.array([one.value for one in made])
    cut = len(first)
    return Sample(
        [values[:cut], values[cut:]], [draws[:, :cut], draws[:, cut:]], len(made[0].top), **more
    )  # fmt: skip


def test_a_figure_on_drawn_dialogues_is_the_figure_of_their_turns():
    """Against the same draws spelt out, turn by turn."""
    draw = np.random.default_rng(0)
    codes = np.sort(draw.integers(0, 7, 40))
    values = draw.random(40)
    found = resampled([statistic(values, codes), statistic(2 * values, codes)], 50, seed=3)
    drawn = np.random.default_rng(3).integers(7, size=(50, 7))
    expected = [np.concatenate([values[codes == dialogue] for dialogue in row]).mean() for row in drawn]
    assert found[:, 0] == pytest.approx(expected)
    assert found[:, 1] == pytest.approx(2 * found[:, 0])  # the same draws for all figures


def test_chunks_of_draws_change_nothing(monkeypatch):
    draw = np.random.default_rng(0)
    codes, values = np.repeat(np.arange(20), 3), draw.random(60)
    whole = resampled([statistic(values, codes)], 100, seed=1)
    monkeypatch.setattr("g2r_lightning.metrics.resampling._CELLS", 50)
    assert resampled([statistic(values, codes)], 100, seed=1) == pytest.approx(whole)


def test_the_jackknife_of_a_mean_is_the_mean():
    """Equal dialogues: leaving one out tells all there is, so draws agree to the last digits."""
    draw = np.random.default_rng(0)
    codes, values = np.repeat(np.arange(20), 3), draw.random(60)
    without = np.array([values[codes != dialogue].mean() for dialogue in range(20)])
    linear = Statistic.linear(values.mean(), without)
    assert linear.value == pytest.approx(values.mean())
    found = resampled([linear, statistic(values, codes)], 200, seed=0)
    assert found[:, 0] == pytest.approx(found[:, 1])


def test_few_dialogues_give_student_s_interval():
    """One turn a dialogue: the interval is that of Student's t on the differences."""
    draw = np.random.default_rng(4)
    first, second = draw.normal(size=12), draw.normal(0.5, size=12)
    theirs = stats.ttest_1samp(second - first, 0).confidence_interval()
    ours = compared([first], [second], np.arange(12), samples=40_000).difference(0, 1)
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.06 * width)
    assert ours.p_value == pytest.approx(stats.ttest_1samp(second - first, 0).pvalue, rel=0.25)


def test_many_dialogues_change_nothing():
    """Beyond a few hundred it is the percentile interval of the plain bootstrap."""
    draw = np.random.default_rng(4)
    first, second = draw.normal(size=900), draw.normal(0.1, size=900)
    theirs = stats.bootstrap(
        (second - first,), np.mean, n_resamples=10_000, method="percentile", batch=1000, rng=1
    ).confidence_interval
    ours = compared([first], [second], np.arange(900), samples=10_000).difference(0, 1)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.04 * (theirs.high - theirs.low))


def test_interval_and_p_value_never_disagree():
    draw = np.random.default_rng(1)
    codes = np.repeat(np.arange(30), 2)
    for shift in np.linspace(0, 0.6, 25):
        noise = draw.normal(size=60)
        found = compared([np.zeros(60)], [noise + shift], codes, samples=1000).difference(0, 1)
        if abs(found.p_value - 0.05) > 0.004:  # the quantile lies between two draws
            assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)


def test_the_other_way_round_is_the_same_with_the_other_sign():
    draw = np.random.default_rng(1)
    sample = compared([draw.random(40)], [draw.random(40)], np.repeat(np.arange(10), 4))
    one, other = sample.difference(0, 1), sample.difference(1, 0)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.p_value == pytest.approx(other.p_value)
    assert sample.of(1).value - sample.of(0).value == pytest.approx(one.value)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_equal_systems_differ_by_nothing_and_surely(scale):
    """Ties everywhere: rounding is no difference."""
    values = scale * np.random.default_rng(1).random(50)
    found = compared([values], [values[::1].copy()], np.repeat(np.arange(10), 5)).difference(0, 1)
    assert (found.value, found.p_value) == (0.0, 1.0)
    assert found.low == pytest.approx(0, abs=1e-12 * scale)


def test_one_dialogue_tells_nothing():
    sample = Sample([np.array([0.5]), np.array([0.7])], [np.empty((0, 1)), np.empty((0, 1))], 1)
    found = sample.difference(0, 1)
    assert found.value == pytest.approx(0.2)
    assert all(map(math.isnan, (found.low, found.high, found.p_value)))


def test_figures_of_some_dialogues_alone_pass_over_draws_without_them():
    made = Statistic(np.array([1.0, 0.0, 0.0]), np.array([2.0, 0.0, 0.0]))
    draws = resampled([made], 500, seed=0)
    assert np.isnan(draws).any()
    found = Sample([np.array([made.value])], [draws], 3).of(0)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


# -- seeds


def test_seeds_by_hand():
    """Dialogues that agree leave the seeds alone: Student's t with Welch's freedom, as SciPy has it."""
    first, second = [0.50, 0.52, 0.57], [0.60, 0.61, 0.66, 0.59]
    codes = np.arange(40)
    sample = compared([np.full(40, v) for v in first], [np.full(40, v) for v in second], codes, samples=60_000)
    ours, theirs = sample.difference(0, 1), stats.ttest_ind(second, first, equal_var=False)
    interval = theirs.confidence_interval()
    assert (ours.low, ours.high) == pytest.approx(
        (interval.low, interval.high), abs=0.06 * (interval.high - interval.low)
    )
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=0.15)
    assert ours.seed_share == pytest.approx(1.0)


def test_seeds_widen_and_one_seed_cannot():
    draw = np.random.default_rng(0)
    codes = np.repeat(np.arange(50), 4)
    base, other = draw.random(200), draw.random(200) + 0.1
    runs = [base + shift for shift in (-0.1, 0.0, 0.1)]
    several = compared(runs, [other + shift for shift in (-0.1, 0.0, 0.1)], codes).difference(0, 1)
    alone = compared([base], [other], codes).difference(0, 1)
    assert several.value == pytest.approx(alone.value)
    assert several.high - several.low > 1.5 * (alone.high - alone.low)
    assert several.seed_share > 0.5
    assert alone.seed_share == 0.0


def test_what_seeds_make_of_single_dialogues_is_counted_once():
    """Runs that are noise alone: all that is known of their means is in the runs, as SciPy takes it."""
    draw = np.random.default_rng(2)
    first, second = draw.normal(size=(4, 500)), draw.normal(size=(4, 500))
    ours = compared(list(first), list(second), np.arange(500), samples=20_000).difference(0, 1)
    theirs = stats.ttest_ind(second.mean(axis=1), first.mean(axis=1), equal_var=False).confidence_interval()
    assert ours.high - ours.low == pytest.approx(theirs.high - theirs.low, rel=0.08)


def test_seeds_that_agree_add_nothing():
    values = np.random.default_rng(0).random(60)
    assert seed_error([np.full(3, 0.5), np.full(4, 0.1)]) == (0.0, 1.0)
    assert seed_error([np.array([0.5])]) == (0.0, 1.0)
    codes = np.repeat(np.arange(20), 3)
    thrice = compared([values] * 3, [1 - values] * 3, codes).difference(0, 1)
    once = compared([values], [1 - values], codes).difference(0, 1)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))


# -- several tests


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert math.isnan(holm([math.nan, 0.02])[0])
    assert holm([math.nan, 0.02])[1] == 0.02


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_holm_keeps_order_stands_between_one_test_and_bonferroni(p_values, draw):
    found = holm(p_values)
    for before, after in zip(p_values, found, strict=True):
        assert before <= after <= min(1.0, before * len(p_values)) + 1e-12
    order = list(range(len(p_values)))
    draw.shuffle(order)
    assert holm([p_values[place] for place in order]) == [found[place] for place in order]
    ranked = [after for _, after in sorted(zip(p_values, found, strict=True))]
    assert ranked == sorted(ranked)


# -- coverage, small; benchmarks/bootstrap_coverage.py is the whole


def test_dialogues_cover_where_turns_do_not():
    draw = np.random.default_rng(7)
    by_dialogue, by_turn, false = [], [], []
    for _ in range(300):
        codes = np.repeat(np.arange(40), draw.integers(1, 9, 40))
        shift = draw.normal(size=40)[codes]
        first = draw.normal(size=len(codes))
        second = first + 0.3 + shift + draw.normal(size=len(codes))
        found = compared([first], [second], codes, samples=400).difference(0, 1)
        by_dialogue.append(found.low <= 0.3 <= found.high)
        turns = compared([first], [second], np.arange(len(codes)), samples=400).difference(0, 1)
        by_turn.append(turns.low <= 0.3 <= turns.high)
        false.append(compared([first], [second - 0.3], codes, samples=400).difference(0, 1).p_value < 0.05)
    assert 0.92 <= np.mean(by_dialogue) <= 0.98
    assert np.mean(by_turn) < 0.85
    assert np.mean(false) <= 0.08


def test_distinct_n_of_a_drawn_corpus_is_too_low_and_the_jackknife_s_is_not():
    """Why Dist-n is not recomputed on drawn dialogues."""
    from g2r_lightning.studies.comparison.figures import distinct_statistic

    draw = np.random.default_rng(0)
    said = [" ".join(draw.choice(["tea", "dog", "sea", "rain", "song"], 6)) for _ in range(60)]
    numbers: dict[tuple[str, ...], int] = {}
    grams = [
        [numbers.setdefault(gram, len(numbers)) for gram in zip(*(text.split()[i:] for i in range(3)), strict=False)]
        for text in said
    ]
    codes = np.repeat(np.arange(20), 3)
    made = distinct_statistic(grams, codes, 20)
    assert made.value == pytest.approx(distinct_n(said, 3))
    without = [
        distinct_n([text for text, code in zip(said, codes, strict=True) if code != left], 3) for left in range(20)
    ]
    deviations = np.array(without) - np.mean(without)
    jackknife = math.sqrt(19 / 20 * (deviations**2).sum())
    draws = resampled([made], 20_000, seed=0)[:, 0]
    assert draws.mean() == pytest.approx(made.value, abs=0.002)
    assert draws.std() * math.sqrt(20 / 19) == pytest.approx(jackknife, rel=0.03)
    recomputed = [
        distinct_n([said[3 * one + turn] for one in draw.integers(20, size=20) for turn in range(3)], 3)
        for _ in range(100)
    ]
    assert max(recomputed) < made.value
