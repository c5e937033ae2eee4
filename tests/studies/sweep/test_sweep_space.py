"""Factors, points, their flags and names; what is refused, and how it is said."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.errors import ConfigError
from g2r_lightning.studies.sweep.space import (
    flags,
    grid_points,
    point_count,
    point_key,
    random_points,
    read_assignment,
    read_factors,
    run_name,
    short_names,
)

ALPHA, STEPS = "model.loss.alpha", "trainer.max_steps"


def test_a_grid_is_every_combination_in_order():
    factors = read_factors({ALPHA: [0, 0.1], STEPS: [10, 20, 30]}, {})
    points = list(grid_points(factors))
    assert [(point[ALPHA], point[STEPS]) for point in points] == [
        (0, 10), (0, 20), (0, 30), (0.1, 10), (0.1, 20), (0.1, 30),
    ]  # fmt: skip


@pytest.mark.parametrize(("said", "count"), [("int(1, 3)", 6), ("uniform(0, 1)", math.inf)])
def test_points_are_counted(said, count):
    factors = read_factors({ALPHA: [0, 0.1]}, {STEPS: said})
    assert point_count(factors) == count
    assert len(list(grid_points(factors))) == (0 if count == math.inf else count)


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("model.loss.alpha=[0, 0.1]", ALPHA, [0, 0.1]),
        ("--model.loss.alpha=[0]", ALPHA, [0]),
        ("a.b=[null, true, x=y]", "a.b", [None, True, "x=y"]),
        ("optimizer.lr=log(1e-5, 1e-3)", "optimizer.lr", "log(1e-5, 1e-3)"),
    ],
)
def test_assignments(text, key, values):
    assert read_assignment("grid", text) == (key, values)


def test_exponents_are_numbers():
    """YAML 1.1 reads 1e-5 as a text."""
    factor = read_factors(dict([read_assignment("grid", "lr=[1e-5, 2E+3, 5.0e-4, e5]")]), {})[0]
    assert factor.values == (1e-5, 2000.0, 5e-4, "e5")


def test_ranges_hold_their_ends_and_repeat_themselves():
    random = {"a": "uniform(0, 0.5)", "b": "log(1e-5,1e-3)", "c": "int(1, 4)", "d": ["x", "y"]}
    factors = read_factors({}, random)
    points = random_points(factors, 40, seed=1)
    assert random_points(factors, 12, seed=1) == points[:12]  # more may be asked for later
    assert random_points(factors, 12, seed=2) != points[:12]
    assert all(0 <= point["a"] <= 0.5 and 1e-5 <= point["b"] <= 1e-3 for point in points)
    assert {point["c"] for point in points} == {1, 2, 3, 4}
    assert {point["d"] for point in points} == {"x", "y"}
    assert sum(point["b"] < 1e-4 for point in points) > 10  # as many below as above, in the logarithm
    assert len(set(map(point_key, points))) == 40


def test_there_are_not_more_points_than_there_are():
    factors = read_factors({}, {"a": ["x", "y"], "b": "int(1, 2)"})
    assert len(random_points(factors, 4, seed=0)) == 4
    with pytest.raises(ConfigError, match=r"trials=5: 4 points are all"):
        random_points(factors, 5, seed=0)


@pytest.mark.parametrize(
    ("grid", "random", "said"),
    [
        ({}, {}, "needs something to vary"),
        ({ALPHA: 0.1}, {}, "a list of values is needed"),
        ({ALPHA: []}, {}, "a list of values is needed"),
        ({ALPHA: [0, 0.1, 0.0]}, {}, "0.0 stands there twice"),
        ({ALPHA: [[1], [1]]}, {}, "stands there twice"),
        ({ALPHA: [0]}, {ALPHA: "uniform(0, 1)"}, "in --grid and in --random"),
        ({"seed_everything": [1, 2]}, {}, "--seeds=N"),
        ({"run.name": ["a", "b"]}, {}, "cannot be varied"),
        ({}, {ALPHA: "normal(0, 1)"}, "say uniform"),
        ({}, {ALPHA: "uniform(0, much)"}, "no numbers"),
        ({}, {ALPHA: "uniform(1, 0)"}, "LOW < HIGH"),
        ({}, {ALPHA: "log(0, 1)"}, "0 < LOW < HIGH"),
        ({}, {ALPHA: "int(0.5, 2)"}, "whole numbers"),
        ({}, {ALPHA: "uniform(0, inf)"}, "LOW < HIGH"),
    ],
)
def test_what_cannot_be_varied_is_told(grid, random, said):
    with pytest.raises(ConfigError) as refused:
        read_factors(grid, random)
    assert said in str(refused.value)
    assert grid == {} or next(iter(grid)) in str(refused.value)


@pytest.mark.parametrize("text", ["model.loss.alpha", "=[1]", "a=[1", ""])
def test_what_is_no_assignment_is_told(text):
    with pytest.raises(ConfigError, match="--grid"):
        read_assignment("grid", text)


def test_true_and_1_are_two_values():
    assert read_factors({"a": [1, True, "1", None]}, {})[0].values == (1, True, "1", None)


def test_a_name_tells_the_point():
    keys = short_names([ALPHA, "config"])
    point = {ALPHA: 0.1, "config": "experiments/dm_ll.yaml"}
    assert run_name(point, 3, keys) == "alpha=0.1,config=dm_ll,seed=3"
    assert flags(point) == ["-c", "experiments/dm_ll.yaml", "--model.loss.alpha=0.1"]


@given(st.lists(st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text("a/ -|é", max_size=4),
                          st.lists(st.integers(0, 2), max_size=3)), min_size=2, max_size=6))  # fmt: skip
def test_names_of_distinct_points_are_distinct_and_fit_into_a_path(values):
    distinct = {point_key({"key": value}): {"key": value} for value in values}
    names = [run_name(point, 1, {"key": "key"}) for point in distinct.values()]
    assert len(set(names)) == len(distinct)
    assert not any(set(name) & set("/ |\\") for name in names)
    assert len(run_name({"key": "x" * 500}, 1, {"key": "key"})) < 200
