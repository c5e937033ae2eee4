"""The study's steps: each parses to the system that it is named after; the whole runs at tiny size (slow)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_study_run import ROOT, prepare, run_tiny_study

from g2r_lightning.cli import main
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.studies.plan import read_plan
from g2r_lightning.studies.report.making import make_report
from g2r_lightning.studies.report.measures import OF_UNTRAINED
from g2r_lightning.studies.report.stored_runs import StoredRun
from g2r_lightning.studies.report.systems import System, system_of

METHODS = {"baseline": "baseline", "d": "D", "dm_ll": "DM-LL", "dm_mi": "DM-MI", "m_ll": "M-LL", "m_mi": "M-MI"}


def parsed(arguments: tuple[str, ...]) -> tuple[System, dict, Path]:
    import yaml

    cli = ExperimentCLI("fit", arguments[1:], ("data", "model"))
    config = yaml.safe_load(cli.saved_config())
    return system_of(StoredRun("x", Path("x"), "student", config, {}, {})), config, cli.run_settings.folder


@pytest.mark.parametrize("name", ["small", "small_factors", "full"])
def test_students_of_the_plans_are_what_they_are_called(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("G2R_DATA", raising=False)
    wanted = {
        "small": ("student 1 poly dm_mi",),
        "small_factors": ("M without D m_mi", "hard negatives dm_ll"),
        "full": ("M without D m_ll", "hard negatives baseline"),
    }[name]
    steps = [one for one in read_plan(Path(f"experiments/study/{name}.plan.yaml")).steps if one.name in wanted]
    sizes = set()
    for step in steps:
        system, config, folder = parsed(step.arguments)
        assert folder == step.done
        assert system.response_set == ("both" if system.data_level else "original")
        called = next(one for one in METHODS if one in step.name.split())
        assert system.method == METHODS[called]
        assert system.encoder.startswith("poly" if "poly" in step.name else "bi")
        hard = [one for one in config["trainer"]["callbacks"] if one["class_path"].endswith("HardNegatives")]
        assert ("hard" in system.negatives) == step.name.startswith("hard") == bool(hard)
        assert all(one["init_args"]["from_epoch"] < config["trainer"]["max_epochs"] for one in hard)
        data = config["data"]["init_args"]
        sizes.add((data["negatives"]["random"], data["max_candidates"], data["train_share"], data["batch_size"]))
    assert sizes == ({(512, 10, 1.0, 48)} if name == "full" else {(64, 4, 0.02, 48)})
    assert len(steps) == len(wanted)


def test_the_plan_s_sweep_tries_what_its_later_steps_name(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("G2R_DATA", raising=False)
    steps = {one.name: one for one in read_plan(Path("experiments/study/small_factors.plan.yaml")).steps}
    assert main([*steps["temperature"].arguments, "--dry_run"]) == 0
    points = [line for line in capsys.readouterr().out.splitlines() if line.startswith("runs/")]
    assert len(points) == 3
    named = " ".join(word for one in steps.values() for word in one.arguments)
    for point in points:
        assert point in named or "=1," in point  # T 1 is the study's own DM-LL


@pytest.mark.slow
def test_the_small_study_runs_from_teacher_to_tables(tmp_path, monkeypatch):
    prepare(tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.delenv("G2R_DATA", raising=False)
    run_tiny_study({})
    for folder in ("runs/study_small", "results/records"):
        made = make_report([folder])
        assert len(made.sections) == 1
        assert not made.skipped
        assert made.counts == {"student": 8, "teacher": 1, "metric": 1}
        table = made.tables["main-all"]
        encoders = [row for row in table.rows if "encoder" in row.labels["system"]]
        (untrained,) = (row for row in encoders if row.labels["system"] == "bi-encoder, untrained")
        assert set(untrained.cells) == {one.key for one in OF_UNTRAINED}
        students = [row for row in encoders if row is not untrained]
        assert len(students) == 8
        assert all(set(row.cells) == {one.key for one in table.measures} for row in students)
