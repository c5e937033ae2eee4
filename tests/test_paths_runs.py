"""Files that appear whole or not at all, and the folder of a run."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest
import torch
import yaml

from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.paths import (
    alone_in,
    atomic_path,
    discard_folder,
    disk_trouble,
    is_held,
    replaced_folder,
    resolve_path,
    writable_place,
)
from g2r_lightning.runs import RunFolder, differences, environment, readable_checkpoint
from g2r_lightning.sealed_yaml import LAST, sealed_yaml, unsealed_yaml

CONFIG = "seed_everything: 1\nrun: {name: x}\ndata: {batch_size: 8, files: [a, b]}\ntrainer: {max_epochs: 2}\n"


def changed(**values: object) -> str:
    tree = yaml.safe_load(CONFIG)
    for key, value in values.items():
        section, _, name = key.partition("__")
        tree[section] = {**tree[section], name: value} if name else value
    return yaml.safe_dump(tree)


def checkpoint(folder: Path, name: str, age: int = 0) -> Path:
    path = folder / "checkpoints" / name
    path.parent.mkdir(exist_ok=True)
    weights = torch.full((64,), 2.5)
    torch.save({"state_dict": {"weights": weights}, "pytorch-lightning_version": "2.6"}, path)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


# -- paths


def test_a_path_of_the_package_and_one_of_the_user(monkeypatch, tmp_path):
    assert resolve_path("package:sample/train.jsonl").is_file()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_path("~/x.jsonl") == tmp_path / "x.jsonl"
    assert resolve_path(Path("a/b")) == Path("a/b")


def test_a_file_appears_whole_and_its_folder_with_it(tmp_path):
    with atomic_path(tmp_path / "new" / "file") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "new" / "file").exists()
    assert (tmp_path / "new" / "file").read_text() == "whole"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    def write() -> None:
        with atomic_path(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise RuntimeError("killed")

    (tmp_path / "file").write_text("old")
    with pytest.raises(RuntimeError, match="killed"):
        write()
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["folder", "file/below", "/proc/nowhere/file"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    path = tmp_path / name

    def write() -> None:
        with atomic_path(path) as temporary:
            temporary.touch()

    with pytest.raises(G2RError, match=str(path)):
        write()
    with pytest.raises(G2RError, match=str(path)):
        writable_place(path)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["file", "folder"]


def test_a_disk_that_is_full_is_named(tmp_path):
    def write() -> None:
        with atomic_path(tmp_path / "file"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(G2RError, match=r"file: cannot be written \(No space left"):
        write()


# -- what differs


def test_differences_name_key_and_both_values():
    old = {"a": {"b": 1, "c": [1, {"d": 2}]}, "run": {"name": "x"}, "alias": {"k": 1}, "e": None}
    new = {"a": {"b": 2, "c": [1, {"d": 3}]}, "run": {"name": "y"}, "alias": {"k": 2}, "f": None}
    assert differences(old, new) == ["a.b: there 1, here 2", "a.c.1.d: there 2, here 3"]
    assert differences(old, old) == []
    assert differences({"a": [1, 2]}, {"a": [1]}) == ["a.1: there 2, here None"]


def test_names_limits_and_displays_are_no_difference():
    old = {"trainer": {"max_epochs": 1, "max_steps": -1, "enable_progress_bar": True, "precision": "32"}}
    new = {"trainer": {"max_epochs": 3, "max_steps": 10, "enable_progress_bar": False, "precision": "32"}}
    assert differences(old, new) == []
    new["trainer"]["precision"] = "bf16"
    assert differences(old, new) == ["trainer.precision: there '32', here 'bf16'"]


# -- the life of a folder


def test_a_new_folder_keeps_its_configuration(tmp_path):
    run = RunFolder(tmp_path / "run")
    assert run.open(CONFIG, "resume") == "new"
    assert unsealed_yaml((run.folder / "config.yaml").read_text()) == CONFIG
    assert run.record() == {}
    assert run.last_checkpoint is run.best_checkpoint is None
    assert run.results("test") == {}


def test_a_configuration_that_was_cut_anywhere_is_no_other_configuration():
    """The head of a YAML file is YAML too."""
    whole = sealed_yaml(CONFIG)
    assert unsealed_yaml(whole) == CONFIG
    for end in range(1, len(whole) - 1):  # without its last line feed it still says the same
        with pytest.raises(ValueError, match="take out its first line"):
            unsealed_yaml(whole[:end])
    assert unsealed_yaml(whole.partition("\n")[2].replace("8", "9")) == CONFIG.replace("8", "9")
    assert unsealed_yaml("#\n# mine\na: 1\n") == "#\n# mine\na: 1\n"
    for before in ("\n", "# mine\n", "---\n"):
        with pytest.raises(ValueError, match="take out its first line"):
            unsealed_yaml(before + whole)


def test_a_configuration_that_an_earlier_release_wrote_is_read():
    import hashlib

    before = f"{CONFIG}{LAST}{hashlib.sha256(CONFIG.rstrip().encode()).hexdigest()}\n"
    assert unsealed_yaml(before) == CONFIG
    for there, instead in (("8", "9"), ("above", "abovE"), ("change the", "chance the")):
        with pytest.raises(ValueError, match="take out its last line"):
            unsealed_yaml(before.replace(there, instead, 1))


def test_a_run_that_stopped_goes_on_and_one_that_finished_does_not(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.open(CONFIG, "resume")
    run.update_record(status="interrupted")
    assert run.open(CONFIG, "resume") == "new"  # it never came to a checkpoint
    checkpoint(run.folder, "a.ckpt")
    assert run.open(CONFIG, "resume") == "resume"
    run.update_record(status="finished", steps=3)
    assert run.open(CONFIG, "resume") == "finished"
    assert run.open(changed(run={"name": "moved"}), "resume") == "finished"
    assert run.record() == {"schema_version": 1, "status": "finished", "steps": 3}
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs=2, and cannot go back to 1"):
        run.open(changed(trainer__max_epochs=1), "resume")
    assert run.record() == {"schema_version": 1, "status": "finished", "steps": 3}
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["trainer"]["max_epochs"] == 2
    assert run.open(changed(trainer__max_epochs=3), "resume") == "resume"


def test_other_settings_are_refused_once_there_is_something_to_lose(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.open(CONFIG, "resume")
    assert run.open(changed(data__batch_size=4), "resume") == "new"
    checkpoint(run.folder, "a.ckpt")
    with pytest.raises(ConfigError, match=r"data\.batch_size: there 4, here 8") as error:
        run.open(CONFIG, "resume")
    assert "--run.on_existing=overwrite" in str(error.value)
    assert run.open(CONFIG, "overwrite") == "new"
    assert run.last_checkpoint is None


def test_a_folder_of_something_else_is_refused_and_what_evaluation_left_is_not(tmp_path):
    run = RunFolder(tmp_path / "run")
    for name in ("results/test.json", "examples/x.parquet", "hparams.yaml", "events.out.tfevents.1", "predictions/a"):
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / name).write_text("{}")
    assert run.open(CONFIG, "resume") == "new"
    (run.folder / "config.yaml").unlink()
    (run.folder / "notes.txt").write_text("mine")
    for on_existing in ("resume", "overwrite"):
        with pytest.raises(ConfigError, match="no run of this project"):
            run.open(CONFIG, on_existing)
    assert (run.folder / "notes.txt").read_text() == "mine"


def test_newest_and_best_checkpoint(tmp_path):
    run = RunFolder(tmp_path)
    old, new = checkpoint(tmp_path, "z.ckpt", age=10), checkpoint(tmp_path, "a.ckpt")
    assert run.last_checkpoint == run.best_checkpoint == new
    run.update_record(best_checkpoint="z.ckpt")
    assert run.best_checkpoint == old
    old.unlink()
    assert run.best_checkpoint == new


def test_a_checkpoint_is_looked_at_before_it_is_loaded(tmp_path):
    path = checkpoint(tmp_path, "a.ckpt")
    assert readable_checkpoint(path) == str(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ConfigError, match=r"a\.ckpt: no checkpoint, or a damaged one"):
        readable_checkpoint(path)
    with pytest.raises(ConfigError, match="no such file"):
        readable_checkpoint(tmp_path / "nowhere.ckpt")


def test_damaged_weights_are_noticed_though_torch_loads_them(tmp_path):
    path = checkpoint(tmp_path, "a.ckpt")
    content = path.read_bytes()
    path.write_bytes(content.replace(torch.full((64,), 2.5).numpy().tobytes(), bytes(256)))
    assert torch.load(path, weights_only=True)["state_dict"]["weights"].sum() == 0
    with pytest.raises(ConfigError, match=r"a\.ckpt: no checkpoint, or a damaged one"):
        readable_checkpoint(path)


@pytest.mark.parametrize("held", [torch.ones(1), {"state_dict": {}}, {"state_dict": {}, "where": Path("a")}])
def test_a_file_of_something_else_is_no_checkpoint(tmp_path, held):
    torch.save(held, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match=r"--ckpt_path=.*other\.ckpt: no checkpoint of"):
        readable_checkpoint(tmp_path / "other.ckpt")


def test_an_archive_of_nothing_is_no_checkpoint(tmp_path):
    (tmp_path / "empty.ckpt").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(ConfigError, match=r"empty\.ckpt: no checkpoint"):
        readable_checkpoint(tmp_path / "empty.ckpt")


def test_a_checkpoint_that_was_cut_short_is_passed_over(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.open(CONFIG, "resume")
    old, new = checkpoint(run.folder, "old.ckpt", age=10), checkpoint(run.folder, "new.ckpt")
    new.write_bytes(new.read_bytes()[:-30])
    assert run.open(CONFIG, "resume") == "resume"
    assert run.last_checkpoint == old
    assert run.cut_checkpoints == [new]


@pytest.mark.parametrize("name", ["record.json", "results/test.json"])
def test_a_damaged_file_of_a_run_is_named(tmp_path, name):
    run = RunFolder(tmp_path / "run")
    run.open(CONFIG, "resume")
    (run.folder / name).parent.mkdir(exist_ok=True)
    (run.folder / name).write_text("{")
    with pytest.raises(ConfigError, match=rf"{name}: damaged .* delete it"):
        run.record() if name == "record.json" else run.results("test")


@pytest.mark.parametrize("text", ["a: [", "", "- 1"])
def test_a_run_with_a_damaged_configuration_is_kept_until_it_may_be_overwritten(tmp_path, text):
    run = RunFolder(tmp_path / "run")
    run.open(CONFIG, "resume")
    kept = checkpoint(run.folder, "a.ckpt")
    (run.folder / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml: damaged .*--run\.on_existing=overwrite"):
        run.open(CONFIG, "resume")
    assert kept.is_file()
    assert run.open(CONFIG, "overwrite") == "new"


def test_the_record_of_the_surroundings_is_plain_data():
    found = json.loads(json.dumps(environment()))
    assert found["versions"]["torch"]
    assert found["machine"]["cores"] >= 1
    assert set(found["git"] or {"commit": "", "changed": False}) == {"commit", "changed"}


def test_a_folder_is_held_as_long_as_somebody_is_in_it(tmp_path):
    assert is_held(tmp_path / "nowhere") is None
    with alone_in(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(G2RError, match="another process"), alone_in(tmp_path):
            pass
    assert is_held(tmp_path) is False


def test_who_waits_comes_in_when_the_other_leaves(tmp_path):
    order = []
    inside = threading.Event()

    def wait():
        inside.set()
        with alone_in(tmp_path, wait=True):
            order.append("second")

    with alone_in(tmp_path):
        thread = threading.Thread(target=wait)
        thread.start()
        inside.wait()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_folder_where_none_can_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    named = r"file/x/y: cannot be written \(Not a directory\); choose another place"
    with pytest.raises(G2RError, match=named), replaced_folder(tmp_path / "file/x/y"):
        pytest.fail("there is no such place")


def test_a_folder_of_work_goes_in_one_step_with_what_a_killed_process_left(tmp_path, monkeypatch):
    work, other = tmp_path / "a[1].parts", tmp_path / "a.parts"
    for folder in (work, other):
        folder.mkdir()
        for name in ("plan.json", "part-00000"):
            (folder / name).write_text(name)
    with monkeypatch.context() as killed:
        killed.setattr("g2r_lightning.paths.shutil.rmtree", lambda *_, **__: None)
        discard_folder(work)
    assert not work.exists()
    assert len(list(tmp_path.iterdir())) == 2
    discard_folder(work)
    assert list(tmp_path.iterdir()) == [other]


def test_a_full_disk_is_told_also_where_a_library_made_another_error_of_it():
    """Seen in `make faults`: TensorBoard's thread had no space, and Lightning told that a figure cannot be logged."""

    failed = ValueError("you tried to log 24.0 which is currently not supported")
    failed.__cause__ = OSError(errno.ENOSPC, "No space left on device", "events")
    assert (disk_trouble(failed) or "").startswith("events: No space left on device; check permissions and free")
    assert disk_trouble(ValueError("tried to log")) is None
