"""The simulation of coverage: its dialogues have the difference that it takes for true, and it writes its page."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(ROOT))

import bootstrap_coverage as simulation  # noqa: E402


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_the_known_difference_is_the_true_one(spread):
    """Over ten thousand dialogues and many seeds."""
    draw = np.random.default_rng(0)
    codes = simulation.dialogues(draw, 10_000)
    runs = simulation.study(draw, codes, simulation.BETTER, 40 if spread else 2, spread)
    shares = [np.mean([run.mean() for run in own]) for own in runs]
    assert shares == pytest.approx([simulation.HITS, simulation.BETTER], abs=0.06 if spread else 0.012)


def test_turns_of_a_dialogue_depend_on_each_other():
    draw = np.random.default_rng(0)
    codes = np.repeat(np.arange(4000), 2)
    first, second = simulation.study(draw, codes, simulation.HITS, 1, 0.0)
    difference = (second[0] - first[0]).reshape(-1, 2)
    assert 0.1 < np.corrcoef(difference.T)[0, 1] < 0.6


def test_a_short_simulation_writes_every_row(tmp_path):
    out = tmp_path / "page.md"
    simulation.main(["--studies=6", f"--output={out}"])
    page = out.read_text()
    assert page.count("| compare |") == 8
    assert page.count("over turns |") == 3
    assert "--studies=6" in page
    assert "The promise" in page


def test_the_promise_can_be_broken():
    narrow, right = simulation.Tally([True] * 85 + [False] * 15, [], []), simulation.Tally([True] * 95 + [False] * 5)
    assert not simulation.kept(narrow, few=False)
    assert simulation.kept(right, few=False)
    right.p_values = [0.01] * 20 + [0.5] * 80
    assert not simulation.kept(right, few=False)
