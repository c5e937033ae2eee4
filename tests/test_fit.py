"""``fit`` from the command line: what it leaves, that it can be repeated, and that it can be stopped anywhere."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from g2r_lightning.callbacks import RandomState
from g2r_lightning.cli import main
from tiny_experiment import STEPS, at_step, results, run, same, weights

# A run resumed elsewhere, or stopped before its first validation: Lightning says what its ModelCheckpoint makes of it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:.*could not find the monitored key"),
]
ONLY_TRAIN = "--run.test_trained=false"


@pytest.fixture
def first(fitted) -> Path:
    return fitted.parent / "runs" / "first"


@pytest.fixture
def runs(tmp_path) -> str:
    """The flag that puts runs into the test's own folder."""
    return f"--run.root={tmp_path}"


@pytest.fixture
def interrupt(monkeypatch):
    """Let training be stopped once, after so many steps, by Ctrl-C or by a crash."""
    handler = signal.getsignal(signal.SIGINT)

    def after(steps: int, error: BaseException) -> None:
        def stop(self, trainer, *_):
            if trainer.global_step == steps:
                monkeypatch.undo()
                raise error

        monkeypatch.setattr(RandomState, "on_train_batch_start", stop, raising=False)

    yield after
    signal.signal(signal.SIGINT, handler)  # Lightning ignores Ctrl-C from the first one on


def test_what_a_run_leaves(first):
    found = {str(path.relative_to(first)) for path in first.rglob("*") if path.is_file()}
    assert {
        "config.yaml", "record.json", "results/validation.json", "results/test.json", "examples/validation-val.parquet",
        "examples/test-one.parquet", "examples/test-two.parquet", "index/manifest.json", "index/responses.arrow",
        "index/student/model.safetensors",
    } <= found  # fmt: skip
    assert not any(path.endswith((".pkl", ".pt", ".tmp")) for path in found)
    record = json.loads((first / "record.json").read_text())
    assert record["status"] == "finished"
    assert record["steps"] == STEPS
    assert record["seed"] == 1
    assert (first / "checkpoints" / record["best_checkpoint"]).is_file()
    assert record["monitor"] == "validation/all/hits_at_1_of_20"
    assert record["best_score"] >= results(first, "validation")["all/hits_at_1_of_20"] > 0
    assert set(record["versions"]) >= {"torch", "lightning", "transformers"}


def test_figures_are_flat_and_the_sets_stand_together(first):
    figures = results(first, "test")
    one, two = pq.read_table(first / "examples/test-one.parquet"), pq.read_table(first / "examples/test-two.parquet")
    assert (len(one), len(two)) == (24, 32)
    for key in ("hits_at_1_of_20", "mrr_of_20", "recall_at_10"):
        together = (24 * figures[f"one/{key}"] + 32 * figures[f"two/{key}"]) / 56
        assert figures[f"all/{key}"] == pytest.approx(together, abs=1e-9)
    assert figures["all/examples"] == 56
    assert {"all/distinct_2", "all/distinct_3", "all/mean_length", "all/generated_share"} <= set(figures)
    assert {"one/recall_at_10_low", "one/recall_at_10_high"} <= set(figures)
    assert all(isinstance(value, int | float) for value in figures.values())


def test_every_epoch_is_in_tensorboard(first):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(first)).Reload()
    assert len(events.Scalars("train/loss")) == STEPS
    for key in ("hits_at_1_of_20", "mrr_of_20", "recall_at_1", "recall_at_10", "recall_at_100", "distinct_2"):
        scalars = events.Scalars(f"validation/all/{key}")
        assert [event.step for event in scalars] == [5, 11]
    last = events.Scalars("validation/all/recall_at_10")[-1].value
    assert last == pytest.approx(results(first, "validation")["all/recall_at_10"], abs=1e-6)
    assert any("validation/val/replies" in tag for tag in events.Tags()["tensors"])


def test_one_seed_gives_one_set_of_weights(fitted, first, runs, tmp_path):
    assert run("fit", fitted, runs, ONLY_TRAIN) == 0
    assert same(weights(at_step(tmp_path / "first")), weights(at_step(first)))
    assert run("fit", fitted, runs, ONLY_TRAIN, "--run.name=other", "--seed_everything=2") == 0
    assert not same(weights(at_step(tmp_path / "other")), weights(at_step(first)))


def test_a_test_of_the_untrained_student_changes_nothing_of_the_training(fitted, first, runs, tmp_path):
    assert run("fit", fitted, runs, "--run.test_untrained=true") == 0
    assert same(weights(at_step(tmp_path / "first")), weights(at_step(first)))
    assert results(tmp_path / "first", "untrained") != results(tmp_path / "first", "test")


@pytest.mark.parametrize("step", [3, 6, 11])
def test_a_resumed_fit_equals_an_uninterrupted_one(fitted, first, runs, tmp_path, step):
    """In mid-epoch and at an epoch's end; the tiny encoder has dropout, so the random state matters."""
    assert run("fit", fitted, runs, f"--ckpt_path={at_step(first, step)}") == 0
    assert same(weights(at_step(tmp_path / "first")), weights(at_step(first)))
    assert results(tmp_path / "first", "validation") == results(first, "validation")
    assert not at_step(tmp_path / "first", step).exists()  # it really began behind that step


def test_a_fit_stopped_by_max_steps_goes_on(fitted, first, runs, tmp_path):
    assert run("fit", fitted, runs, ONLY_TRAIN, "--run.name=short", "--trainer.max_steps=4") == 0
    stopped = at_step(tmp_path / "short", 4)
    assert same(weights(stopped), weights(at_step(first, 4)))
    assert run("fit", fitted, runs, ONLY_TRAIN, f"--ckpt_path={stopped}") == 0
    assert same(weights(at_step(tmp_path / "first")), weights(at_step(first)))


def test_dropout_is_on(fitted, first, runs, tmp_path):
    """Else the random state would not be seen by the tests of resuming."""
    assert run("fit", fitted, runs, ONLY_TRAIN, "--model.encoder.dropout=0.0") == 0
    assert not same(weights(at_step(tmp_path / "first", 1)), weights(at_step(first, 2)))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the power went")])
def test_an_interrupted_run_goes_on_by_the_same_command(fitted, first, runs, tmp_path, interrupt, capsys, error):
    interrupt(8, error)
    if isinstance(error, KeyboardInterrupt):
        assert run("fit", fitted, runs) == 130
        assert "run the same command again" in capsys.readouterr().err
    else:
        with pytest.raises(RuntimeError, match="the power went"):
            run("fit", fitted, runs)
    assert json.loads((tmp_path / "first/record.json").read_text())["status"] != "finished"
    assert run("fit", fitted, runs) == 0
    assert same(weights(at_step(tmp_path / "first")), weights(at_step(first)))
    assert results(tmp_path / "first", "test") == results(first, "test")
    assert json.loads((tmp_path / "first/record.json").read_text())["status"] == "finished"


@pytest.fixture
def copied(first, tmp_path) -> Path:
    shutil.copytree(first, tmp_path / "first")
    return tmp_path / "first"


def test_a_finished_run_is_shown_and_not_trained_again(fitted, copied, runs, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*.*") if path.name != "config.yaml"}
    monkeypatch.setattr("lightning.pytorch.Trainer.fit", lambda *_, **__: pytest.fail("trained again"))
    assert run("fit", fitted, runs) == 0
    assert "recall@10" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*.*") if path.name != "config.yaml"} == before


def test_other_settings_in_the_same_folder_are_refused(fitted, copied, runs, capsys):
    before = (copied / "config.yaml").read_text()
    assert run("fit", fitted, runs, "--data.batch_size=4", "--model.loss.alpha=0.5") == 2
    said = capsys.readouterr().err
    assert "data.init_args.batch_size: there 8, here 4" in said
    assert "model.init_args.loss.init_args.alpha: there 0.0, here 0.5" in said
    assert "--run.on_existing=overwrite" in said
    assert (copied / "config.yaml").read_text() == before


def test_overwrite_trains_again_and_only_once(fitted, first, copied, runs):
    (copied / "old").write_text("")
    assert run("fit", fitted, runs, "--run.on_existing=overwrite", "--seed_everything=2", ONLY_TRAIN) == 0
    assert not (copied / "old").exists()
    trained = weights(at_step(copied))
    assert not same(trained, weights(at_step(first)))
    saved = yaml.safe_load((copied / "config.yaml").read_text())
    assert saved["run"]["on_existing"] == "resume"  # else the saved configuration would destroy its own run
    written = at_step(copied).stat().st_mtime_ns
    assert main(["fit", "-c", str(copied / "config.yaml")]) == 0
    assert at_step(copied).stat().st_mtime_ns == written


def test_a_longer_run_goes_on_from_the_shorter_one(fitted, copied, runs, first):
    assert run("fit", fitted, runs, ONLY_TRAIN, "--trainer.max_epochs=3") == 0
    assert at_step(copied, 18).is_file()
    assert json.loads((copied / "record.json").read_text())["steps"] == 18


def test_a_folder_of_something_else_is_left_alone(fitted, runs, tmp_path, capsys):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "thesis.tex").write_text("years of work")
    assert run("fit", fitted, runs, "--run.on_existing=overwrite") == 2
    assert "no run of this project" in capsys.readouterr().err
    assert (tmp_path / "first" / "thesis.tex").read_text() == "years of work"


def test_an_untrained_evaluation_may_come_before_the_fit(fitted, first, runs, tmp_path):
    assert run("validate", fitted, runs, "--ckpt_path=none") == 0
    assert run("fit", fitted, runs, ONLY_TRAIN) == 0
    assert same(weights(at_step(tmp_path / "first")), weights(at_step(first)))


def test_a_mistake_in_the_data_can_be_mended_in_the_same_folder(fitted, runs, tmp_path, capsys):
    assert (
        run("fit", fitted, runs, "--alias.folder=nowhere", f"--model.encoder.name_or_path={fitted.parent}/encoder") == 2
    )
    assert "nowhere/" in capsys.readouterr().err
    assert run("fit", fitted, runs, ONLY_TRAIN, "--trainer.max_steps=1") == 0


def test_a_checkpoint_holds_plain_data_and_gives_the_same_scores_again(fitted, first, runs, tmp_path):
    path = first / "checkpoints" / json.loads((first / "record.json").read_text())["best_checkpoint"]
    state = torch.load(path, weights_only=True)
    assert {"state_dict", "optimizer_states", "g2r_student", "callbacks"} <= set(state)
    assert run("test", fitted, runs, f"--ckpt_path={path}") == 0
    for name in ("one", "two"):
        again, before = (
            pq.read_table(folder / f"examples/test-{name}.parquet") for folder in (tmp_path / "first", first)
        )
        assert again.equals(before)
    figures, old = results(tmp_path / "first", "test"), results(first, "test")
    assert {k: v for k, v in figures.items() if "/" in k} == {k: v for k, v in old.items() if "/" in k}


def test_alpha_without_scores_is_refused_with_the_remedy(fitted, runs, capsys):
    assert run("fit", fitted, runs, "--model.loss.alpha=0.1") == 2
    said = capsys.readouterr().err
    assert "alpha=0.1" in said
    assert "score" in said


def test_one_callback_needs_no_list(fitted, runs, tmp_path):
    flags = ("--trainer.callbacks=lightning.pytorch.callbacks.LearningRateMonitor", "--run.test_trained=false")
    assert run("fit", fitted, runs, "--trainer.max_steps=1", *flags) == 0


def test_a_diverged_loss_names_the_step(fitted, runs, capsys):
    assert run("fit", fitted, runs, "--model.optimizer.lr=1e30", "--model.schedule.warmup_steps=0") == 2
    said = capsys.readouterr().err
    assert "the loss is" in said
    assert "train:d" in said


def test_a_broken_or_missing_checkpoint_is_named(fitted, runs, tmp_path, capsys):
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"no checkpoint")
    for path, command in [(tmp_path / "nowhere.ckpt", "fit"), (broken, "fit"), (broken, "test")]:
        assert run(command, fitted, runs, f"--ckpt_path={path}") == 2
        assert str(path) in capsys.readouterr().err


def test_a_foreign_checkpoint_is_refused(fitted, first, runs, tmp_path, capsys):
    state = torch.load(at_step(first), weights_only=True)
    del state["g2r_student"]
    torch.save(state, tmp_path / "foreign.ckpt")
    assert run("test", fitted, runs, f"--ckpt_path={tmp_path / 'foreign.ckpt'}") == 2
    assert "holds no student" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--model.text.history=3"], ["text.init_args.history", "20", "3"]),
        (["--model.encoder.output_scale=2.0"], ["encoder.init_args.output_scale", "1.0", "2.0"]),
        (["--model.encoder=g2r_lightning.student.PolyEncoder"], ["encoder.class_path", "BiEncoder", "PolyEncoder"]),
    ],
)
def test_a_checkpoint_that_disagrees_with_the_configuration_names_the_key(fitted, first, runs, capsys, flags, named):
    assert run("test", fitted, runs, f"--ckpt_path={at_step(first)}", *flags) == 2
    said = capsys.readouterr().err
    assert "disagree" in said
    assert all(word in said for word in named), said


def test_a_checkpoint_of_another_size_is_refused(fitted, first, runs, tmp_path, capsys):
    from tiny import WORDS, write_encoder

    write_encoder(tmp_path / "wide", WORDS, hidden=32)
    assert (
        run("test", fitted, runs, f"--ckpt_path={at_step(first)}", f"--model.encoder.name_or_path={tmp_path}/wide") == 2
    )
    said = capsys.readouterr().err
    assert "disagree" in said
    assert "16" in said
    assert "32" in said


def test_the_random_state_is_plain_data_and_comes_back():
    import random

    import numpy as np

    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    saved = RandomState().state_dict()
    drawn = (random.random(), np.random.rand(), torch.rand(()).item())  # noqa: NPY002
    callback = RandomState()
    callback.load_state_dict(saved)
    assert (random.random(), np.random.rand(), torch.rand(()).item()) != drawn  # noqa: NPY002 - not yet restored
    callback.on_train_start(None, None)
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == drawn  # noqa: NPY002
    callback.on_train_start(None, None)  # a second fit is not thrown back
    assert (random.random(), np.random.rand(), torch.rand(()).item()) != drawn  # noqa: NPY002
