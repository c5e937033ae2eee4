"""Means and intervals, which runs count, and what the pages say of the rest."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from g2r_lightning.sections import SweepSettings
from g2r_lightning.studies.sweep.plan import Plan, make_plan
from g2r_lightning.studies.sweep.plots import write_plots
from g2r_lightning.studies.sweep.state import read_runs
from g2r_lightning.studies.sweep.table import (
    best_row,
    markdown,
    mean_of,
    points_csv,
    rows_of,
    runs_csv,
)

CONFIG = {
    "seed_everything": 1,
    "trainer": {
        "callbacks": [
            {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"monitor": "loss", "mode": "min"},
            }
        ]
    },
}
METRIC = "validation/all/hits_at_1_of_20"


def planned(tmp_path, grid=None, **settings) -> Plan:
    grid = {"model.loss.alpha": [0, 0.1]} if grid is None else grid
    chosen = SweepSettings(
        grid=grid, **{"seeds": 3, "metric": METRIC, "direction": "maximize", "name": "study", **settings}
    )
    return make_plan(chosen, ["-c", "x.yaml"], CONFIG, ("x", str(tmp_path)))


def attempt(plan, point, seed, state="COMPLETE", value=None, **facts):
    """What Optuna keeps of an attempt."""
    facts = {"point": point, "seed": seed, "run": plan.run_name(point, seed), "attempt": 1, **facts}
    return SimpleNamespace(user_attrs=facts, state=SimpleNamespace(name=state), value=value, number=0)


def test_the_interval_is_student_s():
    values = np.random.default_rng(0).normal(size=5).tolist()
    found = mean_of(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))


def test_the_interval_covers_as_often_as_it_says():
    draw = np.random.default_rng(1)
    found = [mean_of(draw.normal(3.0, 2.0, size=3).tolist()) for _ in range(4000)]
    covered = np.mean([one.low <= 3.0 <= one.high for one in found])
    assert covered == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors of 4,000 draws


def test_a_single_seed_has_no_interval(tmp_path):
    plan = planned(tmp_path, seeds=1)
    runs = read_runs([attempt(plan, point, 1, value=0.5) for point in plan.points], plan)
    rows = rows_of(runs, plan)
    assert [(row.metric.count, row.metric.low) for row in rows] == [(1, None), (1, None)]
    line = next(csv.DictReader(io.StringIO(points_csv(rows, plan))))
    assert (line[METRIC], line[f"{METRIC} low"], line[f"{METRIC} n"]) == ("0.5", "", "1")
    assert "50.0%" in markdown(rows, runs, plan, {})
    assert "[" not in markdown(rows, runs, plan, {}).split("---: | --- |")[1].split("!")[0]


def test_rows_count_what_finished_and_say_what_did_not(tmp_path):
    plan = planned(tmp_path)
    low, high = plan.points
    trials = [
        attempt(plan, low, 1, value=0.5, figures={"all/recall_at_10": 0.2, "one/recall_at_10": 0.3}),
        attempt(plan, low, 2, "FAIL", reason="no room"),
        attempt(plan, low, 2, value=0.7, figures={"all/recall_at_10": 0.4}),
        attempt(plan, low, 3, "RUNNING"),
        attempt(plan, high, 1, value=0.9, figures={"all/recall_at_10": 0.5}),
        attempt(plan, high, 2, "FAIL", final=True, reason="alpha without | scores"),
    ]
    runs = read_runs(trials, plan)
    first, second = rows_of(runs, plan)
    assert first.metric == mean_of([0.5, 0.7])
    assert first.figures == {"all/recall_at_10": mean_of([0.2, 0.4])}  # "one" is not of every seed
    assert first.notes == ["1 not finished"]
    assert second.notes == ["1 failed", "1 not finished"]
    assert best_row([first, second], plan) is first  # 0.9 is higher, but of a single seed
    page = markdown([first, second], runs, plan, {"recall_at_10": "recall@10"})
    assert "| 0 | 2 | 60.0% [-67.1, 187.1] | 30.0% [-97.1, 157.1] | **best**; 1 not finished |" in page
    assert "`alpha=0.1,seed=2`: alpha without | scores" in page
    assert "3 of 6 runs finished" in page
    lines = {line["run"]: line for line in csv.DictReader(io.StringIO(runs_csv(runs, plan)))}
    assert lines["alpha=0,seed=2"]["attempts"] == "2"
    assert (lines["alpha=0,seed=2"]["state"], lines["alpha=0.1,seed=2"]["state"]) == ("finished", "failed")
    assert lines["alpha=0.1,seed=3"]["state"] == "planned"


def test_the_csv_has_every_test_set(tmp_path):
    plan = planned(tmp_path, seeds=2)
    trials = [
        attempt(plan, point, seed, value=0.5, figures={"all/recall_at_10": 0.2 * seed, "bst/recall_at_10": 0.3 * seed})
        for point in plan.points
        for seed in plan.seeds
    ]
    lines = list(csv.DictReader(io.StringIO(points_csv(rows_of(read_runs(trials, plan), plan), plan))))
    for line in lines:
        assert float(line["test/bst/recall_at_10"]) == pytest.approx(0.45)
        assert float(line["test/bst/recall_at_10 low"]) < 0.45 < float(line["test/bst/recall_at_10 high"])
        assert float(line["test/all/recall_at_10"]) == pytest.approx(0.3)


def test_the_seed_that_a_pruner_judged_is_in_no_mean(tmp_path):
    plan = planned(tmp_path, pruner="median")
    low, high = plan.points
    trials = [
        attempt(plan, low, 1, value=0.9),
        attempt(plan, low, 2, value=0.5),
        attempt(plan, low, 3, value=0.6),
        attempt(plan, high, 1, "PRUNED", reason="pruned after validation 2"),
    ]
    runs = read_runs(trials, plan)
    first, second = rows_of(runs, plan)
    assert first.metric == mean_of([0.5, 0.6])
    assert second.metric is None
    assert second.notes == ["pruned after validation 2"]
    assert [run.state(2) for run in runs if run.point == high] == ["pruned", "skipped", "skipped"]
    assert "first seed (1), which is therefore in no mean" in markdown([first, second], runs, plan, {})


def test_a_pruner_s_choice_biases_no_mean():
    """Points that are all alike, of which half are pruned by their first seed: the means of the rest stay at 0."""
    draw = np.random.default_rng(2)
    with_scout, without = [], []
    for _ in range(300):
        seeds = draw.normal(size=(8, 3))
        kept = seeds[seeds[:, 0] > np.median(seeds[:, 0])]
        with_scout.append(kept.mean())
        without.append(kept[:, 1:].mean())
    assert np.mean(without) == pytest.approx(0, abs=4 / np.sqrt(300 * 4 * 2))
    assert np.mean(with_scout) > 0.2


@pytest.mark.parametrize(
    "grid",
    [
        {"model.loss.alpha": [0, 0.1, 0.5]},
        {"model.loss.alpha": [0, 0.1], "model.loss.temperature": [0.25, 1, 4], "config": ["d.yaml", None]},
        {"a": list(range(9)), "b": list(range(9))},
        {"a": ["x", "y"], "b": [True, False]},
    ],
)
def test_every_factor_has_a_plot_with_labelled_axes(tmp_path, grid, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    saved = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), saved(self, *a, **k)))
    plan = planned(tmp_path, grid, seeds=2)
    trials = [attempt(plan, p, s, value=0.5 + 0.01 * s + 0.02 * i) for i, p in enumerate(plan.points) for s in (1, 2)]
    rows = rows_of(read_runs(trials, plan), plan)
    paths = write_plots(rows, plan)
    assert [path.stem for path in paths] == list(plan.names.values())
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    for figure, factor in zip(figures, plan.factors, strict=True):
        axes = figure.axes[0]
        assert axes.get_xlabel().startswith(factor.key)
        assert axes.get_ylabel() == f"{METRIC} (%)\nhigher is better"
        assert "95% interval over seeds, n = 2" in axes.get_title()
        points = sum(len(bars.lines[0].get_xdata()) for bars in axes.containers)
        assert points == len(plan.points)
        assert all(bars.has_yerr for bars in axes.containers)
    text = [label.get_text() for label in figures[0].axes[0].get_xticklabels()]
    assert text == [str(value) for value in grid[plan.factors[0].key]]


def test_no_plot_without_a_mean(tmp_path):
    plan = planned(tmp_path)
    assert write_plots(rows_of(read_runs([], plan), plan), plan) == []
