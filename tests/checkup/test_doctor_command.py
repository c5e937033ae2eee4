"""``doctor``: a fault of an experiment is told before a command would meet it, with the remedy; nothing is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import lightning.pytorch  # noqa: F401 - its log keeps the stream that it finds when it is imported, not that of a test
import pytest

from g2r_lightning.checkup.machine import _threads, usable_cores, write_findings
from g2r_lightning.checkup.packages import Finding
from g2r_lightning.cli import main
from tiny_experiment import write_experiment


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("doctor"))


@pytest.fixture
def asked(experiment, capsys):
    """Ask, and return exit status and findings of the experiment by level."""

    def call(*flags: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
        capsys.readouterr()
        status = main(["doctor", "-c", str(experiment), "--json", *flags])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        own = [finding for finding in json.loads(said.out)["findings"] if finding["section"] == "experiment"]
        return status, {level: [f for f in own if f["level"] == level] for level in ("ok", "warning", "problem")}

    return call


def test_an_experiment_that_runs_has_no_problem_and_nothing_is_written(experiment, asked):
    before = sorted(experiment.parent.rglob("*"))
    status, found = asked()
    assert status == 0, found["problem"]
    assert not found["problem"]
    told = " ".join(finding["text"] for finding in found["ok"])
    assert "12 training dialogues, 48 responses" in told
    assert "million parameters" in told
    assert sorted(experiment.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--alias.folder=/nowhere/at/all", "no such file"),
        ("--model.encoder.name_or_path=/nowhere/encoder", "no such folder"),
        ("--model.encoder.name_or_path=package:no_such_model", "no module no_such_model"),
        ("--data.choices=1000", "too few for lists of 1000"),
        ("--trainer.max_epoch=3", "max_epochs"),
        ("--data.batch_size=0", "at least 1"),
    ],
)
def test_what_would_fail_is_a_problem_with_a_remedy(asked, flag, said):
    status, found = asked(flag)
    assert status == 1
    problems = [finding for finding in found["problem"] if said in finding["text"]]
    assert problems, found["problem"]
    assert all(finding["remedy"] for finding in problems)


def test_a_store_that_is_missing_is_a_problem_for_fit_and_none_for_generate(asked, tmp_path):
    over = tmp_path / "over.yaml"
    over.write_text(
        f"data: {{class_path: g2r_lightning.data.AugmentedDialogueDataModule, init_args: {{store: {tmp_path}/s}}}}\n"
        "teacher: {class_path: g2r_lightning.teacher.CausalTeacher, init_args: {name_or_path: /nowhere/teacher}}\n"
    )
    flags = ("-c", str(over))
    status, found = asked(*flags)
    assert status == 1
    assert any("no such candidate store" in finding["text"] for finding in found["problem"])
    assert any("/nowhere/teacher" in finding["text"] for finding in found["warning"])  # `fit` needs no teacher
    _, found = asked("--command=generate", *flags)
    assert any("/nowhere/teacher" in finding["text"] for finding in found["problem"])
    assert any("`generate` will make it" in finding["text"] for finding in found["ok"])


@pytest.mark.parametrize(("kind", "setting"), [("CrossEncoderReranker", "name_or_path"), ("PolyReranker", "folder")])
def test_a_second_stage_that_is_missing_is_a_warning(asked, tmp_path, kind, setting):
    over = tmp_path / "over.yaml"
    over.write_text(
        f"rerank: {{class_path: g2r_lightning.inference.rerank.{kind}, init_args: {{{setting}: {tmp_path}/none/x}}}}\n"
    )
    status, found = asked("-c", str(over))
    assert status == 0
    [warned] = [finding for finding in found["warning"] if f"rerank.init_args.{setting}" in finding["text"]]
    assert warned["remedy"]


def test_a_run_with_other_settings_is_found(fitted, capsys):
    assert main(["doctor", "-c", str(fitted), "--json", "--model.optimizer.lr=0.5"]) == 1
    problems = [f for f in json.loads(capsys.readouterr().out)["findings"] if f["level"] == "problem"]
    assert ["lr: there" in finding["text"] for finding in problems] == [True]


def test_without_an_experiment_machine_and_packages_are_told_in_lines(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "usable cores" in said
    assert "torch" in said
    assert said.rstrip().endswith("ok")


def test_malware_is_told_and_nothing_is_imported_after_it(monkeypatch, capsys):
    malware = Finding("packages", "problem", "lightning 2.6.3: this release was malware", "remove it")
    monkeypatch.setattr("g2r_lightning.commands.doctor.package_findings", lambda: [malware])
    monkeypatch.setattr("g2r_lightning.commands.doctor._machine", lambda: pytest.fail("went on"))
    assert main(["doctor", "-c", "x.yaml"]) == 1
    assert "malware" in capsys.readouterr().out


def test_settings_without_an_experiment_are_refused(capsys):
    assert main(["doctor", "--trainer.max_epochs=3"]) == 2
    assert "-c experiments/x.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("threads", "cores", "level"), [(2, 2, "ok"), (4, 8, "ok"), (64, 2, "warning"), (1, 8, "warning"), (1, 0.5, "ok")]
)
def test_threads_are_compared_with_the_cores_that_may_be_used(threads, cores, level):
    assert _threads(threads, cores, None).level == level


def test_places_that_cannot_be_written_to_are_problems(tmp_path):
    (tmp_path / "file").write_text("")
    good, bad = write_findings([("run", tmp_path / "a" / "b"), ("cache", Path("/proc/none"))])
    assert (good.level, bad.level) == ("ok", "problem")
    assert not (tmp_path / "a").exists()
    assert usable_cores() > 0


def test_a_damaged_run_is_a_problem(fitted, tmp_path, capsys):
    shutil.copytree(fitted.parent / "runs" / "first", tmp_path / "first")
    (tmp_path / "first" / "record.json").write_text("{")
    assert main(["doctor", "-c", str(fitted), f"--run.root={tmp_path}", "--json"]) == 1
    assert "damaged run" in capsys.readouterr().out
