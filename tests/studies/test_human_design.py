"""Who rates what: everybody the same, whatever the numbers."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g2r_lightning.studies.human.design import assign, sheets_of


@st.composite
def studies(draw: st.DrawFn) -> tuple[list[list[int]], int, int, int]:
    """Contexts of each arm (some arms lack some), raters, ratings, seed."""
    contexts = draw(st.integers(1, 12))
    some = st.lists(st.integers(0, contexts - 1), unique=True, max_size=contexts)
    arms = draw(st.lists(st.one_of(st.just(list(range(contexts))), some), min_size=1, max_size=4))
    raters = draw(st.integers(1, 7))
    return arms, raters, draw(st.integers(1, raters)), draw(st.integers(0, 3))


def spread(counts: Counter, over: list) -> int:
    values = [counts[each] for each in over]
    return max(values) - min(values)


@settings(max_examples=60)
@given(studies())
def test_every_unit_has_its_raters_and_every_rater_the_same_share(study):
    arms, raters, ratings, seed = study
    sheets = sheets_of(arms, raters, ratings, seed, sides=True)
    everyone = list(range(raters))
    units = Counter((unit.context, unit.arm) for sheet in sheets for unit in sheet)
    assert units == Counter({(context, arm): ratings for arm, own in enumerate(arms) for context in own})
    for sheet in sheets:  # all of a unit's raters are different
        assert len({(unit.context, unit.arm) for unit in sheet}) == len(sheet)
    assert spread(Counter({rater: len(sheet) for rater, sheet in enumerate(sheets)}), everyone) <= 1
    for arm in range(len(arms)):
        of_arm = Counter({rater: sum(unit.arm == arm for unit in sheet) for rater, sheet in enumerate(sheets)})
        assert spread(of_arm, everyone) <= 1
        for sheet in sheets:
            sides = Counter(unit.swapped for unit in sheet if unit.arm == arm)
            assert abs(sides[True] - sides[False]) <= 1
        sides = Counter(unit.swapped for sheet in sheets for unit in sheet if unit.arm == arm)
        assert abs(sides[True] - sides[False]) <= 1


@settings(max_examples=30)
@given(st.integers(2, 12), st.integers(2, 4), st.integers(1, 5), st.integers(0, 5))
def test_systems_come_in_permuted_blocks(contexts, arms, raters, seed):
    for sheet in sheets_of([range(contexts)] * arms, raters, 1, seed):
        counts = Counter(unit.arm for unit in sheet)
        whole = min(counts[arm] for arm in range(arms))
        for start in range(0, whole * arms, arms):
            assert {unit.arm for unit in sheet[start : start + arms]} == set(range(arms))


def test_with_raters_enough_few_meet_a_context_twice():
    sheets = assign([range(40)] * 3, raters=9, ratings=3, seed=0)
    twice = sum(count > 1 for sheet in sheets for count in Counter(unit.context for unit in sheet).values())
    assert twice <= 8  # of 360; a context has 9 judgements, so that none would be the best
    shuffled = sheets_of([range(40)] * 3, raters=3, ratings=3, seed=0)[0]
    last: dict[int, int] = {}
    gaps = []
    for place, unit in enumerate(shuffled):  # all three systems of each context: far apart
        gaps += [place - last[unit.context]] if unit.context in last else []
        last[unit.context] = place
    assert min(gaps) > 20


def test_the_seed_decides_and_nothing_else():
    one = sheets_of([range(9)] * 2, 3, 2, seed=1, sides=True)
    assert one == sheets_of([range(9)] * 2, 3, 2, seed=1, sides=True)
    assert one != sheets_of([range(9)] * 2, 3, 2, seed=2, sides=True)


@pytest.mark.parametrize(("raters", "ratings"), [(2, 3), (0, 0), (1, 0)])
def test_numbers_that_make_no_study_are_refused(raters, ratings):
    with pytest.raises(ValueError, match="at most one a rater"):
        assign([range(3)], raters, ratings)
