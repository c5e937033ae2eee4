from __future__ import annotations

import dataclasses
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from g2r_lightning.dialogue import Example
from g2r_lightning.errors import G2RError, StoreError
from g2r_lightning.store import (
    CANDIDATE_SCHEMA,
    CandidateRow,
    ShardWriter,
    candidate_plan,
    candidate_rows,
    describe_data,
)
from g2r_lightning.store.manifest import CandidateManifest


def rows_of(writer: ShardWriter[CandidateManifest], index: int, examples: list[Example]) -> list[CandidateRow]:
    return [row for i in writer.shard_range(index) for row in candidate_rows(examples[i])]


def write_all(folder: Path, plan: CandidateManifest, examples: list[Example]) -> CandidateManifest:
    writer = ShardWriter(folder, CANDIDATE_SCHEMA, plan)
    writer.begin()
    for index in writer.pending_shards():
        writer.write(index, rows_of(writer, index, examples))
    return writer.finish()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_cover_the_data_in_order(tmp_path, plan, examples):
    writer = ShardWriter(tmp_path / "a", CANDIDATE_SCHEMA, plan)
    assert [list(writer.shard_range(i)) for i in range(writer.num_shards)] == [[0, 1, 2], [3, 4, 5], [6]]
    with pytest.raises(IndexError):
        writer.shard_range(3)
    assert not (tmp_path / "a").exists(), "nothing is touched before begin()"

    manifest = write_all(tmp_path / "a", plan, examples)
    assert [shard.examples for shard in manifest.shards] == [3, 3, 1]
    assert [shard.rows for shard in manifest.shards] == [1 + 2 + 3, 1 + 2 + 3, 1]
    assert manifest.num_rows == 13
    assert sorted(contents(tmp_path / "a")) == [
        "manifest.json",
        "part-00000.parquet",
        "part-00001.parquet",
        "part-00002.parquet",
    ]


def test_order_of_writing_and_number_of_writers_change_nothing(tmp_path, plan, examples):
    write_all(tmp_path / "one", plan, examples)
    ranks = [ShardWriter(tmp_path / "two", CANDIDATE_SCHEMA, plan) for _ in range(2)]
    ranks[0].begin()
    todo = ranks[0].pending_shards()
    for rank in (1, 0):
        for index in reversed(todo[rank::2]):
            ranks[rank].write(index, rows_of(ranks[rank], index, examples))
    ranks[0].finish()
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


KILLED = """
import os, signal, sys
from pathlib import Path
from g2r_lightning.dialogue import Candidate, Example
from g2r_lightning.store import CANDIDATE_SCHEMA, ShardWriter, candidate_plan, candidate_rows, describe_data
from g2r_lightning.paths import atomic_path

examples = [Example(f"toy:{i}:1", (f"hi {i}",), f"reply {i} 🙂") for i in range(5)]
writer = ShardWriter(sys.argv[1], CANDIDATE_SCHEMA, candidate_plan(describe_data(examples), {}, examples_per_shard=2))
writer.begin()
writer.write(0, [row for example in examples[:2] for row in candidate_rows(example)])
with atomic_path(Path(sys.argv[1]) / "part-00001.parquet") as temporary:
    temporary.write_bytes(b"PAR1 half a sha")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_run_continues_to_the_same_bytes(tmp_path):
    examples = [Example(f"toy:{i}:1", (f"hi {i}",), f"reply {i} 🙂") for i in range(5)]
    plan = candidate_plan(describe_data(examples), {}, examples_per_shard=2)
    folder = tmp_path / "killed"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert killed.returncode == -9
    names = sorted(path.name for path in folder.iterdir() if path.suffix != ".sha256")
    assert names[1:] == ["part-00000.parquet", "plan.json"]
    assert names[0].endswith(".tmp")
    before = (folder / "part-00000.parquet").stat().st_mtime_ns

    writer = ShardWriter(folder, CANDIDATE_SCHEMA, plan)
    writer.begin()
    assert writer.completed_shards() == [0]
    assert writer.pending_shards() == [1, 2]
    assert not list(folder.glob("*.tmp"))
    with pytest.raises(StoreError, match=r"2 of 3 shards .* part-00001\.parquet.*again"):
        writer.finish()
    write_all(folder, plan, examples)
    write_all(tmp_path / "straight", plan, examples)
    assert contents(folder) == contents(tmp_path / "straight")
    assert (folder / "part-00000.parquet").stat().st_mtime_ns == before, "finished shards are not written again"


def test_a_shard_is_on_the_disk_before_it_has_its_name(tmp_path, plan, examples, monkeypatch):
    writer = ShardWriter(tmp_path / "a", CANDIDATE_SCHEMA, plan)
    writer.begin()
    synced: list[int] = []

    def fsync(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):  # the folder is flushed when all is done
            assert not writer.is_done(0)
            synced.append(os.fstat(handle).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    writer.write(0, rows_of(writer, 0, examples))
    assert (tmp_path / "a" / "part-00000.parquet").stat().st_size in synced


def test_an_error_in_the_middle_of_a_shard_leaves_no_file(tmp_path, plan, examples, monkeypatch):
    writer = ShardWriter(tmp_path / "a", CANDIDATE_SCHEMA, plan)
    writer.begin()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("g2r_lightning.store.writer.pq.write_table", full)
    with pytest.raises(G2RError, match="No space"):
        writer.write(0, rows_of(writer, 0, examples))
    assert list(contents(tmp_path / "a")) == ["plan.json"]


def test_a_finished_folder_is_left_alone(tmp_path, plan, examples):
    first = write_all(tmp_path / "a", plan, examples)
    before = contents(tmp_path / "a")
    again = ShardWriter(tmp_path / "a", CANDIDATE_SCHEMA, plan)
    again.begin()
    assert again.pending_shards() == []
    assert again.finish() == first
    assert contents(tmp_path / "a") == before


@pytest.mark.parametrize("harm", [lambda data: data[:-1], lambda data: data[:9] + b"x" + data[10:]])
def test_a_finished_folder_with_a_shard_that_changed_is_not_called_finished(tmp_path, plan, examples, harm):
    """Killed behind the manifest, say, and damaged before the same command runs again."""
    write_all(tmp_path / "a", plan, examples)
    shard = sorted((tmp_path / "a").glob("*.parquet"))[-1]
    shard.write_bytes(harm(shard.read_bytes()))
    with pytest.raises(StoreError, match=rf"{shard.name}: (damaged|changed).*; (restore it|delete this file)"):
        write_all(tmp_path / "a", plan, examples)


@pytest.mark.parametrize("finished", [False, True])
def test_a_folder_begun_for_something_else_is_refused_with_both_values(tmp_path, plan, examples, finished):
    folder = tmp_path / "a"
    if finished:
        write_all(folder, plan, examples)
    else:
        ShardWriter(folder, CANDIDATE_SCHEMA, plan).begin()
        (folder / "part-00000.parquet.7.tmp").write_bytes(b"of the other run")
    before = contents(folder)
    other = dataclasses.replace(plan, sampling={"top_p": 0.8, "m": 2}, teacher={**plan.teacher, "revision": None})
    with pytest.raises(StoreError) as caught:
        ShardWriter(folder, CANDIDATE_SCHEMA, other).begin()
    message = str(caught.value)
    assert 'teacher.revision: store has "abc", this experiment has null' in message
    assert "sampling.top_p: store has 0.9, this experiment has 0.8" in message
    assert "sampling.m" not in message
    assert "--store" in message
    assert f"delete {folder}" in message
    assert contents(folder) == before


def test_the_same_examples_in_another_order_cannot_continue_a_run(tmp_path, plan, examples):
    ShardWriter(tmp_path / "a", CANDIDATE_SCHEMA, plan).begin()
    turned = describe_data(reversed(examples))
    other = dataclasses.replace(plan, data_hash=turned.data_hash, order_hash=turned.order_hash)
    with pytest.raises(StoreError, match="order_hash"):
        ShardWriter(tmp_path / "a", CANDIDATE_SCHEMA, other).begin()


def test_shards_of_unknown_origin_are_refused(tmp_path, plan, examples):
    write_all(tmp_path / "a", plan, examples)
    (tmp_path / "a" / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"part-0000\d\.parquet: a shard without plan\.json"):
        ShardWriter(tmp_path / "a", CANDIDATE_SCHEMA, plan).begin()


def test_a_shard_damaged_between_runs_is_named(tmp_path, plan, examples):
    writer = ShardWriter(tmp_path / "a", CANDIDATE_SCHEMA, plan)
    writer.begin()
    writer.write(1, rows_of(writer, 1, examples))
    shard = tmp_path / "a" / "part-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"part-00001\.parquet: damaged.*delete this file"):
        writer.begin()


def test_a_file_in_the_way_is_an_error_for_people(tmp_path, plan):
    (tmp_path / "a").write_text("not a folder")
    with pytest.raises(StoreError, match="--store"):
        ShardWriter(tmp_path / "a" / "candidates", CANDIDATE_SCHEMA, plan).begin()


def test_finish_refuses_other_examples_than_planned(tmp_path, plan, examples):
    writer = ShardWriter(tmp_path / "a", CANDIDATE_SCHEMA, plan)
    writer.begin()
    for index in range(3):
        writer.write(index, rows_of(writer, index, [*examples[3:6], *examples[:3], examples[6]]))
    with pytest.raises(StoreError, match="other examples than planned"):
        writer.finish()
    assert not (tmp_path / "a" / "manifest.json").exists()


def test_rows_must_be_whole_examples(tmp_path, plan, examples):
    writer = ShardWriter(tmp_path / "a", CANDIDATE_SCHEMA, plan)
    writer.begin()
    rows = rows_of(writer, 0, examples)
    for wrong in (
        rows[:-3],  # an example too few
        [*rows[1:]],  # an example too few, the first
        [*rows[:-1], dataclasses.replace(rows[-1], candidate_id=7)],
        [rows[0], rows[1], *rows[3:], rows[2]],  # one example in two places
        [*rows[:-1], dataclasses.replace(rows[-1], context=("another",))],
    ):
        with pytest.raises(ValueError, match="example"):
            writer.write(0, wrong)
    assert not writer.is_done(0)


def test_half_a_surrogate_pair_names_the_example(tmp_path, plan, examples):
    writer = ShardWriter(tmp_path / "a", CANDIDATE_SCHEMA, plan)
    writer.begin()
    examples[1] = dataclasses.replace(examples[1], response="\ud83d")
    with pytest.raises(StoreError, match=r"'toy:1:2', candidate 0.*surrogate"):
        writer.write(0, rows_of(writer, 0, examples))


def test_nothing_missing_is_written_where_a_value_is_required(tmp_path, plan, examples):
    writer = ShardWriter(tmp_path / "a", CANDIDATE_SCHEMA, plan)
    writer.begin()
    rows = rows_of(writer, 0, examples)
    rows[0] = dataclasses.replace(rows[0], response=None)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="non-nullable"):
        writer.write(0, rows)
    assert not writer.is_done(0)


def test_a_shard_that_changed_before_all_were_there_is_named(tmp_path, plan, examples):
    """The manifest, written last, would have blessed it."""
    writer = ShardWriter(tmp_path / "a", CANDIDATE_SCHEMA, plan)
    writer.begin()
    writer.write(0, rows_of(writer, 0, examples))
    path = tmp_path / "a" / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"part-00000\.parquet: (changed since it was written|damaged)"):
        ShardWriter(tmp_path / "a", CANDIDATE_SCHEMA, plan).begin()
