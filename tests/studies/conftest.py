"""A learned metric that was fitted once, for tests that change nothing in its run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_metric import write_metric_experiment

from tiny_experiment import run


@pytest.fixture(scope="session")
def metric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment, ``metric.yaml``, with its finished run ``runs/metric``."""
    experiment = write_metric_experiment(tmp_path_factory.mktemp("metric"))
    assert run("fit", experiment) == 0
    return experiment
