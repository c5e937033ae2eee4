"""``sweep`` from the command line: runs as ``fit`` makes them, shared by processes, never lost."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from rich.console import Console

from g2r_lightning.callbacks import RandomState
from g2r_lightning.cli import main
from g2r_lightning.commands import sweep as command
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.runs import RunFolder, differences
from g2r_lightning.sections import SweepSettings
from g2r_lightning.studies.sweep import queue as queues
from g2r_lightning.studies.sweep.live import live_table
from g2r_lightning.studies.sweep.plan import make_plan
from g2r_lightning.studies.sweep.queue import Queue
from g2r_lightning.studies.sweep.storage import JournalLock, _journal_lock, open_study
from g2r_lightning.studies.sweep.trial import run_task
from g2r_lightning.studies.sweep.watch import KEPT
from tiny_experiment import run, same, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:.*could not find the monitored key"),
]
METRIC = "validation/all/hits_at_1_of_20"
SHORT = ("--trainer.max_epochs=1", "--run.test_trained=false")
RATES = "model.optimizer.lr=[1e-4, 1e-2]"


@pytest.fixture
def root(tmp_path) -> str:
    """The flag that puts studies into the test's own folder."""
    return f"--run.root={tmp_path}"


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The names of the runs whose training began, in order; each "trains" at once and finds 0.5 + its rate."""
    begun: list[str] = []

    def fit(arguments, callbacks):
        flags = dict(word.removeprefix("--").split("=", 1) for word in arguments if word.startswith("--"))
        folder = RunFolder(Path(flags["run.root"]) / flags["run.name"])
        begun.append(folder.folder.name)
        folder.update_record(status="finished", monitor=METRIC, best_score=0.5 + float(flags["model.optimizer.lr"]))
        return folder

    monkeypatch.setattr(command, "_fit", fit)
    monkeypatch.setattr(command, "check_points", lambda plan: None)
    monkeypatch.setattr(command, "write_plots", lambda rows, plan: [])
    return begun


def rows(folder: Path, name: str = "points.csv") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / name).read_text())))


def test_runs_are_those_that_fit_makes(fitted, root, tmp_path, capsys):
    short = "--trainer.max_epochs=1"
    assert run("sweep", fitted, root, short, "--seeds=2", "--name=study", "--grid", "model.optimizer.lr=[1e-2]") == 0
    said = capsys.readouterr()
    assert "[2/2]" in said.out
    assert said.out.count("begins") == 2
    study = tmp_path / "study"
    ours = study / "lr=0.01,seed=2"
    assert (
        run(
            "fit",
            fitted,
            root,
            "--trainer.max_epochs=1",
            "--seed_everything=2",
            "--model.optimizer.lr=1e-2",
            "--trainer.devices=1",
        )
        == 0
    )
    theirs = tmp_path / "first"
    assert same(weights(ours / "checkpoints/at-step=6.ckpt"), weights(theirs / "checkpoints/at-step=6.ckpt"))
    assert differences(*(yaml.safe_load((one / "config.yaml").read_text()) for one in (ours, theirs))) == []
    record = json.loads((ours / "record.json").read_text())
    assert record["status"] == "finished"
    assert record[KEPT]["point"] == {"model.optimizer.lr": 0.01}
    assert record[KEPT]["history"] == [[6, record["best_score"]]]
    for row in rows(study):
        own = [one for one in rows(study, "runs.csv") if one["model.optimizer.lr"] == row["model.optimizer.lr"]]
        assert float(row[METRIC]) == pytest.approx(sum(float(one[METRIC]) for one in own) / 2)
        assert float(row[f"{METRIC} low"]) <= float(row[METRIC]) <= float(row[f"{METRIC} high"])
        assert row["test/all/hits_at_1_of_20 n"] == "2"
    assert (study / "lr.png").is_file()
    assert "| 0.01 | 2 |" in (study / "study.md").read_text()
    logged = (study / "logs/lr=0.01,seed=2.log").read_text()
    assert "next: answer contexts" in logged  # what a run prints is not between the study's lines
    assert "next: answer contexts" not in said.out


def test_a_second_start_repeats_nothing(fitted, root, tmp_path, trained, capsys):
    flags = (root, "--name=study", "--grid", RATES)
    assert run("sweep", fitted, *flags) == 0
    assert trained == ["lr=0.0001,seed=1", "lr=0.01,seed=1"]
    assert run("sweep", fitted, *flags) == 0
    assert len(trained) == 2
    assert run("sweep", fitted, *flags, "--seeds=2") == 0  # more seeds are welcome
    assert trained[2:] == ["lr=0.0001,seed=2", "lr=0.01,seed=2"]
    assert [row[f"{METRIC} n"] for row in rows(tmp_path / "study")] == ["2", "2"]
    before = (tmp_path / "study/points.csv").read_text()
    (tmp_path / "study/study.journal").unlink()
    assert run("sweep", fitted, *flags, "--seeds=2") == 0  # the folders hold what cost time
    assert (tmp_path / "study/points.csv").read_text() == before


def plan_of(tmp_path, trainer=None, batch_size=8, **settings):
    chosen = {"metric": METRIC, "direction": "maximize", "name": "study", **settings}
    if "random" not in settings:
        chosen = {"grid": {"model.optimizer.lr": [1e-4, 1e-2]}, **chosen}
    config = {"seed_everything": 1, "trainer": trainer, "data": {"batch_size": batch_size}}
    return make_plan(SweepSettings(**chosen), [], config, ("x", str(tmp_path)))


def test_a_study_begun_with_another_grid_is_refused_with_both(tmp_path):
    open_study(plan_of(tmp_path, seeds=2))
    with pytest.raises(ConfigError) as refused:
        open_study(plan_of(tmp_path, grid={"model.optimizer.lr": [1e-4]}, batch_size=4))
    said = str(refused.value)
    assert "model.optimizer.lr: there [0.0001, 0.01], here [0.0001]" in said
    assert "data.batch_size: there 8, here 4" in said
    assert "seeds: there [1, 2], here [1]" in said
    assert open_study(plan_of(tmp_path, seeds=3)).user_attrs["g2r_spec"]["seeds"] == [1, 2, 3]


@pytest.mark.parametrize("storage", [None, "sqlite:///{folder}/study/study.db"])
def test_a_damaged_storage_is_named_with_the_remedy(tmp_path, storage):
    plan = plan_of(tmp_path, storage=storage and storage.format(folder=tmp_path))
    plan.folder.mkdir()
    Queue(open_study(plan), plan).take().held.close()
    path = Path(plan.storage.removeprefix("sqlite:///"))
    whole = path.read_bytes()
    path.write_bytes(b"damaged" * 1000 if storage else whole.replace(b"\n{", b"\n!", 1))
    with pytest.raises(ConfigError, match="move it away") as refused:
        open_study(plan)
    assert str(path) in str(refused.value)
    path.unlink()
    assert Queue(open_study(plan), plan).take().attempt == 1


def test_half_a_line_at_the_end_of_a_journal_is_taken_off(tmp_path):
    plan = plan_of(tmp_path)
    first = Queue(open_study(plan), plan).take()
    journal = Path(plan.storage)
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 4, "work')
    assert Queue(open_study(plan), plan).take().name != first.name
    assert len(Queue(open_study(plan), plan).runs()) == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--grid", "model.loss.alfa=[0, 0.1]"], "did you mean 'alpha'"),
        (["--grid", "model.loss.alpha=[0, much]"], "at model.loss.alpha=much"),
        (["--grid", "alias.unused=[1]"], "'--alias.unused' reaches nothing"),
        (["--sweep.grids={}"], "did you mean 'grid'"),
    ],
)
def test_mistakes_are_told_before_anything_runs(fitted, root, tmp_path, capsys, flags, said):
    assert run("sweep", fitted, root, *flags) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seeds": 0}, "seeds=0"),
        ({"seeds": [1, 1]}, "distinct"),
        ({"seeds": []}, "one at least"),
        ({"metric": "validation/loss", "direction": None}, "--direction"),
        ({"metric": None}, "--metric"),
        ({"sampler": "tpe"}, "--trials"),
        ({"trials": 3}, "--sampler=random"),
        ({"pruner": "median"}, "--seeds=2"),
        ({"random": {"model.optimizer.lr": "log(1e-5, 1e-3)"}, "sampler": "grid", "trials": 3}, "list them"),
        ({"name": "a/b"}, "one folder"),
        ({"trainer": {"devices": 2}}, "one device"),
        ({"trainer": {"devices": "0,1"}}, "one device"),
        ({"trainer": {"devices": 1, "num_nodes": 2}}, "one device"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(tmp_path, settings, said):
    with pytest.raises(ConfigError) as refused:
        plan_of(tmp_path, **settings)
    assert said in str(refused.value)


def test_a_run_is_no_study(fitted):
    with pytest.raises(ConfigError, match="is a run, no study"):
        plan_of(fitted.parent / "runs", name="first")


def test_a_missing_library_is_named_with_the_extra(fitted, root, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert run("sweep", fitted, root, "--grid", RATES) == 2
    assert "pip install 'g2r-lightning[studies]'" in capsys.readouterr().err


def test_a_dry_run_prints_the_points(fitted, root, tmp_path, capsys):
    (tmp_path / "sweep.yaml").write_text(f"sweep: {{grid: {{{RATES.replace('=', ': ')}}}, seeds: 3}}")
    flags = ("-c", str(tmp_path / "sweep.yaml"), root, "--grid", "alias.folder=[here]", "--dry_run")
    assert run("sweep", fitted, *flags) == 0
    said = capsys.readouterr().out
    assert "lr=0.01,folder=here,seed=1\n  --model.optimizer.lr=0.01 --alias.folder=here\n" in said
    assert "2 points x 3 seeds (1, 2, 3) = 6 runs" in said
    assert not (tmp_path / "first-sweep").exists()
    assert run("sweep", fitted, root, "--random", "model.optimizer.lr=log(1e-5,1e-3)", "--trials=3", "--dry_run") == 0
    assert capsys.readouterr().out.count("  --model.optimizer.lr=") == 3


def test_a_full_disk_stops_the_study_and_the_same_command_goes_on(fitted, root, tmp_path, monkeypatch, trained, capsys):
    """Seen in `make faults`: its runs were tried three times in a second, and then counted as failed for good."""
    fit = command._fit
    full: list[Exception] = [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.ckpt")]

    def failing(arguments, callbacks):
        if "--run.name=lr=0.01,seed=1" in arguments and full:
            try:
                raise full.pop()
            except OSError as error:
                raise G2RError("x.ckpt: cannot be written") from error
        return fit(arguments, callbacks)

    monkeypatch.setattr(command, "_fit", failing)
    flags = (root, "--name=study", "--grid", RATES, "--retries=0")
    assert run("sweep", fitted, *flags) == 2
    said = capsys.readouterr().err
    assert "lr=0.01,seed=1: x.ckpt: cannot be written; make room, then run the same command again" in said
    assert run("sweep", fitted, *flags) == 0
    found = {row["run"]: row["state"] for row in rows(tmp_path / "study", "runs.csv")}
    assert found == {"lr=0.0001,seed=1": "finished", "lr=0.01,seed=1": "finished"}
    assert trained.count("lr=0.0001,seed=1") == 1


def test_no_killed_process_keeps_the_journal_s_lock(tmp_path):
    """Seen in `make faults`: the next process waited for half a minute."""
    lock = _journal_lock(tmp_path / "study.journal")
    if not isinstance(lock, JournalLock):
        pytest.skip("this file system knows no locks")
    hold = "import sys, time; from pathlib import Path; from g2r_lightning.studies.sweep.storage import _journal_lock\n"
    hold += "lock = _journal_lock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); time.sleep(60)"
    words = [sys.executable, "-c", hold, str(tmp_path / "study.journal")]
    got: list[float] = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        thread = threading.Thread(target=lambda: got.append(lock.acquire() and time.monotonic()))
        thread.start()
        thread.join(0.3)
        assert not got
        process.kill()
        killed = time.monotonic()
        thread.join(30)
    assert got[0] - killed < 5


def test_a_thread_holds_the_journal_s_lock_until_it_lets_go(tmp_path):
    lock = JournalLock(tmp_path / "lock")
    assert lock.acquire()
    assert lock.acquire()  # a signal came between asking and using
    got: list[bool] = []
    thread = threading.Thread(target=lambda: got.append(lock.acquire()))
    thread.start()
    thread.join(0.3)
    assert not got
    lock.release()
    thread.join(30)
    assert got
    lock.release()  # holds nothing, and takes nothing from the other


def test_failures_are_tried_again_or_reported(fitted, root, tmp_path, monkeypatch, trained, capsys):
    fit = command._fit
    errors = {
        "lr=0.0001,seed=1": [RuntimeError("no memory"), OSError("gone")],
        "lr=0.01,seed=2": [RuntimeError("x")] * 9,
    }

    def failing(arguments, callbacks):
        name = next(word.partition("run.name=")[2] for word in arguments if word.startswith("--run.name="))
        if errors.get(name):
            trained.append(name)
            raise errors[name].pop()
        return fit(arguments, callbacks)

    monkeypatch.setattr(command, "_fit", failing)
    flags = (root, "--name=study", "--grid", RATES, "--seeds=2")
    assert run("sweep", fitted, *flags) == 2
    assert trained.count("lr=0.0001,seed=1") == 3
    assert trained.count("lr=0.01,seed=2") == 3
    found = {row["run"]: row for row in rows(tmp_path / "study", "runs.csv")}
    assert [row["state"] for row in found.values()] == ["finished", "finished", "finished", "failed"]
    assert "RuntimeError: x" in found["lr=0.01,seed=2"]["reason"]
    said = capsys.readouterr()
    assert "failed: lr=0.01,seed=2: RuntimeError: x" in said.out
    assert "1 of 4 runs failed for good" in said.err
    assert "--retry_failed" in said.err
    logged = (tmp_path / "study/logs/lr=0.0001,seed=1.log").read_text()
    assert logged.count("Traceback") == 2
    assert "RuntimeError: no memory" in logged
    assert run("sweep", fitted, *flags) == 2
    assert trained.count("lr=0.01,seed=2") == 3  # reported, not tried for ever
    errors.clear()
    assert run("sweep", fitted, *flags, "--retry_failed") == 0
    assert {row["state"] for row in rows(tmp_path / "study", "runs.csv")} == {"finished"}


def test_a_fault_of_the_settings_is_not_tried_again_and_stops_when_all_have_it(
    fitted, root, tmp_path, trained, monkeypatch, capsys
):
    def refusing(arguments, callbacks):
        rate = next(word for word in arguments if word.startswith("--model.optimizer.lr"))
        raise ConfigError(f"{rate} needs scores")

    monkeypatch.setattr(command, "_fit", refusing)
    assert run("sweep", fitted, root, "--name=study", "--grid", "model.optimizer.lr=[0.1, 0.2, 0.3, 0.4]") == 2
    said = capsys.readouterr().err
    assert "--model.optimizer.lr=0.3 needs scores" in said
    assert "--retry_failed" in said
    found = rows(tmp_path / "study", "runs.csv")
    assert [(row["state"], row["attempts"]) for row in found] == [("failed", "1")] * 3 + [("waiting", "0")]


@pytest.mark.parametrize("storage", [None, "sqlite:///{folder}/study.db"])
def test_processes_share_a_study_without_repeating_or_losing_anything(tmp_path, storage):
    """Eight workers, each with a storage of its own as a process has, on twelve points with two seeds."""
    begun: list[str] = []
    storage = storage and storage.format(folder=tmp_path)

    def work():
        plan = plan_of(tmp_path, grid={"a": list(range(12))}, seeds=2, storage=storage)
        queue = Queue(open_study(plan), plan)
        while (task := queue.take()) is not None:
            with queue.alive(task):
                begun.append(task.name)
                time.sleep(0.01)
                assert queue.finish(task, "COMPLETE", 0.5)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(begun) == sorted(f"a={value},seed={seed}" for value in range(12) for seed in (1, 2))
    plan = plan_of(tmp_path, grid={"a": list(range(12))}, seeds=3, storage=storage)
    later = Queue(open_study(plan), plan)  # the next day, with a seed more
    tasks = [later.take() for _ in range(12)]
    assert {task.seed for task in tasks} == {3}
    assert later.take() is None


def test_a_run_that_ends_while_another_process_looks_has_ended(tmp_path, monkeypatch):
    """Seen in CI: the other one found the lock free, took the run for dead, and could not fail what was complete."""
    plan = plan_of(tmp_path, grid={"a": [1]}, seeds=1)
    queue, other = Queue(open_study(plan), plan), Queue(open_study(plan), plan)
    task = queue.take()

    def ended(_):
        with queue.alive(task):
            assert queue.finish(task, "COMPLETE", 0.5)
        return True

    monkeypatch.setattr(other, "_is_gone", ended)
    assert other.take() is None
    assert [run.state(plan.settings.retries) for run in other.runs()] == ["finished"]


def test_a_run_of_another_machine_is_taken_over_when_it_is_silent_for_long(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, stale_after=60.0)
    there, here = (Queue(open_study(plan), plan) for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(queues.socket, "gethostname", lambda: "another")
        task = there.take()
    task.held.close()
    mine = here.take()
    assert mine.name == "lr=0.01,seed=1"
    assert here.take() is None
    now = time.time()
    monkeypatch.setattr(queues.time, "time", lambda: now + 61)
    again = here.take()
    assert (again.name, again.attempt) == (task.name, 2)
    assert not there.finish(task, "COMPLETE", 0.1)  # it woke up too late, and does not count
    assert here.finish(again, "COMPLETE", 0.2)
    again.held.close()
    assert [one.last.value for one in here.runs()] == [0.2, None]


def test_a_run_of_another_machine_that_holds_its_lock_is_at_work(tmp_path, monkeypatch):
    """On a file system that tells of locks, silence (or a clock that runs ahead) does not count."""
    plan = plan_of(tmp_path, stale_after=60.0, grid={"a": [1]})
    there, here = (Queue(open_study(plan), plan) for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(queues.socket, "gethostname", lambda: "another")
        task = there.take()
    now = time.time()
    monkeypatch.setattr(queues.time, "time", lambda: now + 3600)
    assert here.take() is None
    assert there.finish(task, "COMPLETE", 0.1)
    task.held.close()
    assert [one.last.value for one in here.runs()] == [0.1]


def test_a_lock_that_is_not_let_go_of_yet_costs_no_attempt(tmp_path):
    """A process tells that its run failed before it lets go of the lock; another one looks in between."""
    plan = plan_of(tmp_path, grid={"a": [1]}, retries=1)
    there, here = (Queue(open_study(plan), plan) for _ in range(2))
    task = there.take()
    there.finish(task, "FAIL", reason="no room")
    for _ in range(3):
        assert here.take() is None
    task.held.close()
    assert here.take().attempt == 2


def test_a_run_that_was_being_taken_by_a_process_that_was_stopped_waits_no_more(tmp_path, monkeypatch):
    """Seen in `make faults`: the next process waited for five minutes."""
    plan = plan_of(tmp_path)
    first = Queue(open_study(plan), plan)
    with monkeypatch.context() as patch:
        patch.setattr(queues.socket, "gethostname", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            first.take()
    second = Queue(open_study(plan), plan)
    assert {second.take().name, second.take().name} == {"lr=0.0001,seed=1", "lr=0.01,seed=1"}


def test_ctrl_c_gives_the_run_back(fitted, root, tmp_path, monkeypatch, capsys):
    handler = signal.getsignal(signal.SIGINT)

    def stop(self, trainer, *_):
        if trainer.global_step == 3:
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(RandomState, "on_train_batch_start", stop, raising=False)
    flags = (root, "--name=study", *SHORT, "--grid", "model.optimizer.lr=[1e-2]", "--retries=0")
    assert run("sweep", fitted, *flags) == 130
    signal.signal(signal.SIGINT, handler)
    assert "run the same command again" in capsys.readouterr().err
    before = sorted((tmp_path / "study/lr=0.01,seed=1/checkpoints").glob("at-*"))
    written = [path.stat().st_mtime_ns for path in before]
    assert len(before) == 3
    assert run("sweep", fitted, *flags) == 0
    assert [path.stat().st_mtime_ns for path in before] == written  # it went on behind them
    assert len(list(before[0].parent.glob("at-*"))) == 6
    assert [row["state"] for row in rows(tmp_path / "study", "runs.csv")] == ["finished"]


def test_two_processes_share_a_study_and_one_takes_over_when_the_other_is_killed(fitted, root, tmp_path, capsys):
    words = [
        "sweep", "-c", str(fitted), root, "--name=study", "--grid", RATES, "--run.test_trained=false",
        "--trainer.max_epochs=500",
    ]  # fmt: skip
    killed = tmp_path / "study/lr=0.0001,seed=1"
    process = subprocess.Popen(
        [sys.executable, "-m", "g2r_lightning", *words], env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + 120
    while not (killed / "checkpoints/at-step=8.ckpt").is_file() and time.monotonic() < until:
        assert process.poll() is None
        time.sleep(0.05)

    written = (killed / "checkpoints/at-step=8.ckpt").stat().st_mtime_ns

    waiting = threading.Event()

    def kill():
        waiting.wait(120)
        process.kill()
        process.wait()

    def stop(self, trainer, *_):
        """Some steps an attempt, not 500 epochs."""
        self.seen = getattr(self, "seen", 0) + 1
        trainer.should_stop = self.seen > 8

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RandomState, "on_train_batch_end", stop, raising=False)
        patch.setattr(command, "POLL_SECONDS", 0.1)
        patch.setattr(command.Display, "wait", lambda self, running: waiting.set())
        assert main(words) == 0
    thread.join()
    said = capsys.readouterr().out
    assert waiting.is_set()
    assert said.index("lr=0.01,seed=1: begins") < said.index("lr=0.0001,seed=1 (attempt 2): begins")
    found = {row["run"]: row for row in rows(tmp_path / "study", "runs.csv")}
    assert [(row["state"], row["attempts"]) for row in found.values()] == [("finished", "2"), ("finished", "1")]
    assert (killed / "checkpoints/at-step=8.ckpt").stat().st_mtime_ns == written  # it went on behind it
    steps = [step for step, _ in RunFolder(killed).record()[KEPT]["history"]]
    assert steps[:-1] == list(range(6, steps[-1], 6))  # each validation once, those before the kill among them
    assert steps[-1] > 12


def test_points_are_pruned_by_their_first_seed_alone(fitted, root, tmp_path, monkeypatch):
    """Values come from a list: the first four points set the standard, the fifth is worse than half of them."""
    found = {"0.1": 0.9, "0.2": 0.8, "0.3": 0.7, "0.4": 0.6, "0.5": 0.1, "0.6": 0.95}
    begun = []

    def fit(arguments, callbacks):
        words = dict(word.removeprefix("--").split("=", 1) for word in arguments if word.startswith("--"))
        folder = RunFolder(Path(words["run.root"]) / words["run.name"])
        begun.append(folder.folder.name)
        watch = callbacks[0]
        for step in (1, 2, 3):
            trainer = SimpleNamespace(
                sanity_checking=False, state=SimpleNamespace(fn="fit"), global_step=step, current_epoch=step - 1,
                callback_metrics={METRIC: torch.tensor(found[words["a"]])},
            )  # fmt: skip
            watch.on_validation_end(trainer, None)
        return folder

    plan = plan_of(tmp_path, grid={"a": [float(key) for key in found]}, seeds=2, pruner="median", prune_after=2)
    queue = Queue(open_study(plan), plan)
    while (task := queue.take()) is not None:
        run_task(queue, task, fit)
    states = {one.name: one.state(2) for one in queue.runs()}
    assert states["a=0.5,seed=1"] == "pruned"
    assert states["a=0.5,seed=2"] == "skipped"
    assert [name for name, state in states.items() if state != "finished"] == ["a=0.5,seed=1", "a=0.5,seed=2"]
    record = RunFolder(tmp_path / "study/a=0.5,seed=1").record()
    assert record["status"] == "pruned"
    assert len(record[KEPT]["history"]) == 2
    assert "a=0.5,seed=2" not in begun
    (tmp_path / "study/study.journal").unlink()
    again = Queue(open_study(plan), plan)
    count = len(begun)
    while (task := again.take()) is not None:
        run_task(again, task, fit)
    assert "a=0.5,seed=1" not in begun[count:]  # its record says so


def test_tpe_goes_where_it_is_good_and_gives_every_point_its_seeds(tmp_path):
    settings = {"random": {"a": "uniform(0, 1)"}, "sampler": "tpe", "trials": 30}
    plan = plan_of(tmp_path, **settings, seeds=2)
    for _ in range(2):  # a second process goes on with it
        queue = Queue(open_study(plan), plan)
        for _ in range(33):
            if (task := queue.take()) is not None:
                queue.finish(task, "COMPLETE", -((task.point["a"] - 0.7) ** 2))
                task.held.close()
    runs = queue.runs()
    assert len(runs) == 60
    assert {one.state(2) for one in runs} == {"finished"}
    values = [one.point["a"] for one in runs[:30]]
    assert len(set(values)) == 30
    assert sum(abs(value - 0.7) < 0.15 for value in values[15:]) > 8  # 4.5 by chance


def test_tpe_finds_every_point_of_a_small_space(tmp_path):
    """It would draw the good ones for ever."""
    settings = {"grid": {"a": [1, 2, 3], "b": [True, False]}, "sampler": "tpe"}
    with pytest.raises(ConfigError, match="trials=7: 6 points are all there are"):
        plan_of(tmp_path, **settings, trials=7)
    plan = plan_of(tmp_path, **settings, trials=6)
    queue = Queue(open_study(plan), plan)
    found = []
    while (task := queue.take()) is not None:
        found.append((task.point["a"], task.point["b"]))
        queue.finish(task, "COMPLETE", float(task.point["a"] == 1))
        task.held.close()
    assert sorted(found) == sorted((a, b) for a in (1, 2, 3) for b in (True, False))
    assert not queue.exhausted


def test_a_range_that_has_no_further_point_is_told(fitted, root, tmp_path, trained, monkeypatch, capsys):
    flags = (root, "--name=study", "--random", "model.optimizer.lr=uniform(0.1, 0.10001)", "--sampler=tpe")
    assert run("sweep", fitted, *flags, "--trials=9") == 2
    assert "points ran, and TPE found no other one" in capsys.readouterr().err
    assert 1 <= len(trained) <= 2
    plan = plan_of(tmp_path / "2", random={"a": "uniform(0.1, 0.10001)"}, sampler="tpe", trials=9)
    queue = Queue(open_study(plan), plan)
    while (task := queue.take()) is not None:
        queue.finish(task, "COMPLETE", 0.5)
        task.held.close()
    assert queue.exhausted
    kept = len(queue.study.trials)
    assert queue.take() is None
    assert len(queue.study.trials) == kept  # asked again and again, while others are at work, it grows no more


def test_halving_goes_on_with_the_best_alone(tmp_path):
    found = {0.1: 0.9, 0.2: 0.8, 0.3: 0.95}

    def fit(arguments, callbacks):
        words = dict(word.removeprefix("--").split("=", 1) for word in arguments if word.startswith("--"))
        for step in (1, 2, 3):
            trainer = SimpleNamespace(
                sanity_checking=False, state=SimpleNamespace(fn="fit"), global_step=step, current_epoch=step - 1,
                callback_metrics={METRIC: torch.tensor(found[float(words["a"])])},
            )  # fmt: skip
            callbacks[0].on_validation_end(trainer, None)
        return RunFolder(Path(words["run.root"]) / words["run.name"])

    plan = plan_of(tmp_path, grid={"a": list(found)}, seeds=2, pruner="halving", prune_after=1)
    queue = Queue(open_study(plan), plan)
    while (task := queue.take()) is not None:
        run_task(queue, task, fit)
    assert {one.name: one.state(2) for one in queue.runs()} == {
        "a=0.1,seed=1": "finished", "a=0.2,seed=1": "pruned", "a=0.3,seed=1": "finished",
        "a=0.1,seed=2": "finished", "a=0.2,seed=2": "skipped", "a=0.3,seed=2": "finished",
    }  # fmt: skip


def test_a_terminal_shows_the_table_while_runs_go_on(fitted, root, tmp_path, trained, monkeypatch, capsys):
    """Drawn anew in its place, and gone at the end, when the table of results stands there."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    fit = command._fit

    def slowly(arguments, callbacks):
        time.sleep(1.5)  # the table is drawn once a second
        return fit(arguments, callbacks)

    monkeypatch.setattr(command, "_fit", slowly)
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    assert run("sweep", fitted, root, "--name=study", "--grid", RATES) == 0
    shown = screen.getvalue()
    assert "1 running, 1 waiting" in shown
    assert "1 finished, 1 running" in shown
    assert "begins" not in shown  # the line of a log
    assert "\x1b[2K" in shown  # drawn over


def test_the_live_table_shows_who_is_at_work(tmp_path):
    plan = plan_of(tmp_path, seeds=2)
    queue = Queue(open_study(plan), plan)
    first = queue.take()
    queue.finish(first, "COMPLETE", 0.5)
    second = queue.take()
    second.trial.set_user_attr("progress", {"epoch": 3, "value": 0.25})
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(live_table(queue.runs(), plan, 10))
    text = console.export_text()
    assert "1 finished, 1 running" in text
    assert "seed 1 epoch 3: 0.25" in text
    assert "50.0%" in text
    console.print(live_table(queue.runs(), plan, 1))
    text = console.export_text()
    assert "0.0001" not in text  # the one at work stays
    assert "1 more points" in text
