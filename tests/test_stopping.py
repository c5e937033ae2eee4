"""SIGTERM and Ctrl-C while nothing is lost, and while training is."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import threading

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from g2r_lightning import cli, commands
from g2r_lightning.callbacks import RetrievalEvaluation, StopWithCheckpoint
from g2r_lightning.callbacks.rng import RandomState
from g2r_lightning.cli import main
from g2r_lightning.data.shard_pass import ShardPass
from g2r_lightning.errors import ConfigError
from g2r_lightning.stopping import StopSignals, stop_signals
from tiny_experiment import STEPS, at_step, results, run, same, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:.*could not find the monitored key"),
]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_a_command_and_tells_how_to_go_on(monkeypatch, capsys, number, status):
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    monkeypatch.setattr(commands, "run", lambda *_: os.kill(os.getpid(), number))
    assert main(["score"]) == status
    assert "run the same command again to go on" in capsys.readouterr().err
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
    assert stop_signals() is None


@pytest.mark.parametrize("error", [ConfigError("'omegaconf+'"), KeyError("omegaconf+")])
def test_what_a_library_makes_of_a_signal_is_a_signal_still(monkeypatch, capsys, error):
    """Seen: an import within jsonargparse, which a signal broke off, was told as a setting that does not exist."""

    def swallowed(*_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise error from None

    monkeypatch.setattr(commands, "run", swallowed)
    assert main(["score"]) == 130
    assert "stopped; run the same command again to go on" in capsys.readouterr().err


def test_ctrl_c_before_a_command_is_watched_is_told_too(monkeypatch, capsys):
    """Seen in `make faults`: a traceback, when it came while messages were being set up."""
    monkeypatch.setattr(cli, "_quieten", lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        assert main(["score"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "stopped; run the same command again to go on" in capsys.readouterr().err


def test_a_thread_that_cannot_write_says_so_in_a_line(monkeypatch, caplog):
    """Seen in `make faults`: the traceback of TensorBoard's thread, when the disk was full."""
    others = []
    monkeypatch.setattr(threading, "excepthook", others.append)

    def run(*_):
        for error in (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "events"), ValueError("another")):
            thread = threading.Thread(target=lambda error=error: (_ for _ in ()).throw(error))
            thread.start()
            thread.join()
        return 0

    monkeypatch.setattr(commands, "run", run)
    for _ in range(2):
        assert main(["score"]) == 0
    assert caplog.text.count("in another thread: events: No space left on device; check permissions") == 2
    assert [str(one.exc_value) for one in others] == ["another", "another"]


def test_patience_lasts_for_one_signal():
    with StopSignals() as signals:
        signals.patient = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signals.status == 143


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_pass_over_shards_hears_signals_alone(tmp_path, caplog, number, status):
    """Lightning's own handler would broadcast to processes that may be waiting for something else."""

    class Shards:
        folder = tmp_path

        def begin(self):
            pass

        def pending_shards(self):
            return [0]

        def shard_length(self, index):
            return 1

    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    stopped = ShardPass(Shards(), lambda _: os.kill(os.getpid(), number), "making", "shards", lambda _: None)
    with StopSignals() as signals, caplog.at_level(logging.INFO), pytest.raises(SystemExit):
        trainer.predict(stopped, return_predictions=False)
    assert signals.status == status
    assert "Detected KeyboardInterrupt" in caplog.text
    assert "Received SIGTERM" not in caplog.text


@pytest.fixture
def send(monkeypatch):
    """Let SIGTERM come once, in a hook of the evaluation or of the model."""

    def at(owner, name, when):
        original = getattr(owner, name)

        def hooked(self, *arguments, **more):
            if when(*arguments):
                monkeypatch.setattr(owner, name, original)
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, *arguments, **more)

        monkeypatch.setattr(owner, name, hooked)

    return at


def finished(fitted, tmp_path, flags=()):
    """Run again to the end, and return whether weights and figures are those of a run that nobody stopped."""
    first = fitted.parent / "runs/first"
    assert run("fit", fitted, f"--run.root={tmp_path}", *flags) == 0
    assert not list((tmp_path / "first/checkpoints").glob("stopped-*"))
    assert json.loads((tmp_path / "first/record.json").read_text())["status"] == "finished"
    return (
        same(weights(at_step(tmp_path / "first", STEPS)), weights(at_step(first)))
        and results(tmp_path / "first", "test") == results(first, "test")
        and results(tmp_path / "first", "validation") == results(first, "validation")
    )


def test_within_a_step_the_step_is_finished_and_saved(fitted, tmp_path, send):
    from g2r_lightning.student import RetrievalStudent

    send(RetrievalStudent, "training_step", lambda batch, index: index == 2)
    assert run("fit", fitted, f"--run.root={tmp_path}") == 143
    assert [path.name for path in (tmp_path / "first/checkpoints").glob("stopped-*")] == ["stopped-step=3.ckpt"]
    assert finished(fitted, tmp_path)


def test_the_stop_is_behind_other_checkpoints_also_where_a_module_brings_callbacks(tmp_path):
    """Seen in `make faults`: a teacher brings its export, Lightning sorts anew, a stop lost the step's checkpoint."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    saving = ModelCheckpoint(tmp_path)
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[saving], default_root_dir=tmp_path)
    trainer.callbacks.append(stop := StopWithCheckpoint(tmp_path, RandomState()))

    class Bringing(LightningModule):
        def configure_callbacks(self):
            return [Callback()]

    trainer.strategy.connect(Bringing())
    trainer._callback_connector._attach_model_callbacks()
    assert trainer.callbacks[-2:] == [saving, stop]
    assert trainer.checkpoint_callback is saving


def test_within_an_evaluation_no_step_is_lost(fitted, tmp_path, send):
    send(RetrievalEvaluation, "on_validation_batch_end", lambda *_: True)
    assert run("fit", fitted, f"--run.root={tmp_path}") == 143
    assert [path.name for path in (tmp_path / "first/checkpoints").glob("stopped-*")] == ["stopped-step=6.ckpt"]
    assert finished(fitted, tmp_path)


def test_the_evaluation_before_the_training_does_not_swallow_it(fitted, tmp_path, send):
    send(RetrievalEvaluation, "on_test_epoch_start", lambda *_: True)
    assert run("fit", fitted, f"--run.root={tmp_path}", "--run.test_untrained=true") == 143
    assert not list((tmp_path / "first").glob("checkpoints/*"))
    assert finished(fitted, tmp_path, ["--run.test_untrained=true"])


def test_an_epoch_whose_last_step_was_saved_is_evaluated_when_the_run_goes_on(fitted, tmp_path):
    """Killed in the first evaluation: Lightning alone goes on with the second epoch, and misses its figures."""
    first = fitted.parent / "runs/first"
    assert run("fit", fitted, f"--run.root={tmp_path}", f"--ckpt_path={at_step(first, STEPS // 2)}") == 0
    assert results(tmp_path / "first", "test") == results(first, "test")
    best = [
        json.loads((folder / "record.json").read_text())["best_checkpoint"] for folder in (tmp_path / "first", first)
    ]
    assert best[0] == best[1]
    assert run("fit", fitted, f"--run.root={tmp_path}", "--run.name=end", f"--ckpt_path={at_step(first)}") == 0
    assert results(tmp_path / "end", "validation") == results(first, "validation")
