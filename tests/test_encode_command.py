"""``encode`` as a user runs it: one process or two, killed and continued, from every student, of every input."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from g2r_lightning.cli import main
from g2r_lightning.errors import StoreError
from g2r_lightning.index import EncodedResponses, encode_rows, load_index
from g2r_lightning.store.json_file import write_json
from tiny import WORDS

COUNT, SHARD = 230, 32
SHARDS = -(-COUNT // SHARD)


@pytest.fixture(scope="module")
def place(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``r.txt``: 230 replies that differ, 40 that do not, 3 blank lines."""
    folder = tmp_path_factory.mktemp("encode")
    draw = random.Random(0)
    texts = [f"{' '.join(draw.choices(WORDS, k=draw.randint(1, 14)))} {number}" for number in range(COUNT)]
    doubled = [f"  {text.replace(' ', '   ')} " for text in texts[:40]]
    (folder / "r.txt").write_text("\n".join([*texts[:50], "", *doubled, " ", *texts[50:], ""]) + "\n")
    (folder / "texts.json").write_text(json.dumps(texts))
    return folder


@pytest.fixture(scope="module")
def whole(fitted: Path, place: Path) -> dict[str, bytes]:
    """The files of a folder that one process made without a break."""
    assert encode(fitted, place, "whole") == 0
    return content(place / "whole")


def words(fitted: Path, place: Path, output: str, *flags: str) -> list[str]:
    """Return the command's arguments."""
    config = fitted.parent / "runs/first/config.yaml"
    given = [f"--encode.input={place}/r.txt", f"--encode.output={place}/{output}", f"--encode.shard_size={SHARD}"]
    return ["encode", "-c", str(config), *given, *flags]


def encode(fitted: Path, place: Path, output: str, *flags: str) -> int:
    return main(words(fitted, place, output, *flags))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def start(fitted: Path, place: Path, output: str, *flags: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with (place / f"{output}.log").open("ab") as log:
        given = [sys.executable, "-m", "g2r_lightning", *words(fitted, place, output, *flags)]
        return subprocess.Popen(given, env=environment, stdout=log, stderr=log)


def test_vectors_are_those_of_the_whole_set_encoded_at_once(fitted, place, whole):
    _, encoder, text = load_index(fitted.parent / "runs/first/index")
    texts = json.loads((place / "texts.json").read_text())
    encoded = EncodedResponses(place / "whole")
    shards = list(encoded.shards())
    assert [text for shard in shards for text in shard.texts()] == texts
    assert {source for shard in shards for source in shard.sources()} == {"approved"}
    assert [shard.first for shard in shards] == list(range(0, COUNT, SHARD))
    rows = [np.array(row, np.int32) for row in text.encode_responses(texts)]
    expected = encode_rows(encoder.encode_responses, rows, text.pad_id, torch.device("cpu"))
    found = np.concatenate([shard.vectors for shard in shards])
    assert found.shape == (len(encoded), encoded.dimension) == (COUNT, 16)
    assert np.abs(found - expected.numpy()).max() < 1e-5
    assert all(isinstance(shard.vectors, np.memmap) for shard in shards)
    encoded.verify()


def test_the_manifest_tells_what_was_made_of_what(place, whole):
    manifest = json.loads(whole["manifest.json"])
    assert (manifest["responses"], manifest["duplicates"], manifest["blank"]) == (COUNT, 40, 3)
    assert [shard["responses"] for shard in manifest["shards"]] == [SHARD] * (SHARDS - 1) + [COUNT % SHARD]
    assert len(manifest["student"]["weights_hash"]) == 32
    assert manifest["student"]["text"]["max_response_tokens"] == 16
    assert set(whole) == {"manifest.json"} | {name for shard in manifest["shards"] for name in shard["files"]}


def test_what_was_made_is_reported(fitted, place, whole, capsys):
    assert encode(fitted, place, "reported") == 0
    said = capsys.readouterr().out
    assert "encoded by this command" in said
    for figure in ("230", "40", "tokens a second", "padding"):
        assert figure in said
    assert encode(fitted, place, "reported") == 0  # finished: nothing is made again
    assert content(place / "reported") == whole


def test_two_processes_make_the_same_folder(fitted, place, whole):
    process = start(fitted, place, "two", "--trainer.devices=2", "--trainer.strategy=ddp")
    assert process.wait(timeout=240) == 0, (place / "two.log").read_text()
    assert content(place / "two") == whole
    assert "230" in (place / "two.log").read_text().partition("encoded by this command")[2].splitlines()[0]


def test_killed_and_continued_is_the_same_folder(fitted, place, whole, capsys):
    """One text a pass, so that a shard takes long enough to be killed in."""
    slow = "--encode.token_budget=1"
    process = start(fitted, place, "killed", slow)
    while not list((place / "killed").glob("part-*.npy")) and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait(timeout=60)
    before = {path: path.stat().st_mtime_ns for path in (place / "killed").glob("part-*.npy")}
    assert 0 < len(before) < SHARDS, (place / "killed.log").read_text()
    assert not (place / "killed/manifest.json").exists()
    with pytest.raises(StoreError, match="unfinished"):
        EncodedResponses(place / "killed")
    assert encode(fitted, place, "killed", slow) == 0
    assert f"{COUNT - SHARD * len(before)}" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())  # what was there stayed
    assert encode(fitted, place, "slowly", slow) == 0
    assert content(place / "killed") == content(place / "slowly")
    assert content(place / "killed").keys() == whole.keys()


def test_killed_while_reading_begins_to_read_again(fitted, place, whole):
    folder = place / "reading"
    assert encode(fitted, place, "reading") == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    outcome = ("responses", "duplicates", "blank", "dimension", "shards", "created_by")
    plan = {key: value for key, value in manifest.items() if key not in outcome}
    for name in ("manifest.json", *(path.name for path in folder.glob("*.npy")), "part-00002.parquet"):
        (folder / name).unlink()
    write_json(folder / "plan.json", plan)
    (folder / ".part-00002.parquet.7.tmp").write_text("half of it")
    assert encode(fitted, place, "reading") == 0
    assert content(folder) == whole


def test_another_question_to_the_same_folder_is_refused_with_both_values(fitted, place, whole, capsys):
    def refused(*flags: str) -> str:
        assert encode(fitted, place, "whole", *flags) == 2
        return capsys.readouterr().err

    manifest = json.loads(whole["manifest.json"])
    said = refused("--ckpt_path=none")
    assert f'student.weights_hash: the folder has "{manifest["student"]["weights_hash"]}", this command has "' in said
    (place / "other.txt").write_text("hi\n")
    said = refused(f"--encode.input={place}/other.txt")
    assert f'input.sha256: the folder has "{manifest["input"]["sha256"]}", this command has "' in said
    assert 'dtype: the folder has "float32", this command has "float16"' in refused("--encode.dtype=float16")
    assert "shard_size: the folder has 32, this command has 7" in refused("--encode.shard_size=7")
    assert content(place / "whole") == whole


def test_a_student_s_folder_serves_as_well_as_a_run(fitted, place, whole):
    run = fitted.parent / "runs/first"
    for student in (run / "index", run / "index/student"):
        flags = [f"--encode.student={student}", f"--encode.input={place}/r.txt", f"--encode.shard_size={SHARD}"]
        trainer = ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]
        assert main(["encode", *flags, f"--encode.output={place}/student", *trainer]) == 0
        assert content(place / "student") == whole


def test_half_precision_takes_half_the_space(fitted, place, whole):
    assert encode(fitted, place, "half", "--encode.dtype=float16") == 0
    for half, full in zip(
        EncodedResponses(place / "half").shards(), EncodedResponses(place / "whole").shards(), strict=True
    ):
        assert half.vectors.dtype == np.float16
        assert np.array_equal(half.vectors, full.vectors.astype(np.float16))


@pytest.mark.parametrize(("able", "precision", "flags"), [
    (True, "bf16-mixed", []), (False, "32-true", []), (False, "bf16-mixed", ["--trainer.precision=bf16"]),
    (False, "bf16-true", ["--trainer.precision=bf16-true"]), (True, "64-true", ["--trainer.precision=64-true"]),
])  # fmt: skip
def test_bfloat16_where_the_machine_has_it_or_it_is_asked_for(
    fitted, place, whole, monkeypatch, able, precision, flags
):
    """The towers compute in it; the vectors are float32, and the student is nobody else."""
    monkeypatch.setattr("g2r_lightning.machine.cpu_multiplies_bf16", lambda: able)
    name = f"{precision}-{able}"
    student = [f"--encode.student={fitted.parent}/runs/first/index", f"--encode.input={place}/r.txt"]
    where = [f"--encode.output={place}/{name}", f"--encode.shard_size={SHARD}", "--trainer.accelerator=cpu"]
    assert main(["encode", *student, *where, *flags]) == 0
    found, plain = EncodedResponses(place / name), EncodedResponses(place / "whole")
    manifest = json.loads((place / name / "manifest.json").read_text())
    assert manifest["precision"] == precision
    assert manifest["student"] == json.loads(whole["manifest.json"])["student"]
    vectors, expected = (np.concatenate([shard.vectors for shard in each.shards()]) for each in (found, plain))
    assert vectors.dtype == np.float32
    cosines = (vectors * expected).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() >= 0.999
    assert np.array_equal(vectors, expected) == (precision == "32-true")
    assert torch.get_default_dtype() == torch.float32


def test_other_inputs_give_the_same_vectors(fitted, place, whole):
    texts = json.loads((place / "texts.json").read_text())
    lines = [json.dumps({"response": text, "source": "approved"}) + "\n" for text in texts]
    (place / "r.jsonl").write_text("".join(lines))
    pq.write_table(pa.table({"said": texts}), place / "r.parquet")
    for name, flags in (("r.jsonl", []), ("r.parquet", ["--encode.field=said"])):
        assert (
            encode(fitted, place, name, f"--encode.input={place}/{name}", f"--encode.output={place}/of-{name}", *flags)
            == 0
        )
        found = content(place / f"of-{name}")
        assert {key: found[key] for key in found if key != "manifest.json"} == {
            key: whole[key] for key in whole if key != "manifest.json"
        }


@pytest.mark.parametrize(
    ("name", "held", "named"),
    [
        ("empty.txt", b"", "the response set is empty"),
        ("blank.txt", b"\n  \n", "the response set is empty"),
        ("bad.txt", b"hi\nh\xff\n", "bad.txt:2: not UTF-8"),
        ("bad.jsonl", b'{"text": "hi"}\n{"reply": "hi"}\n', "bad.jsonl:2: expected an object"),
        ("none.txt", None, "no such file"),
    ],
)
def test_input_that_does_not_serve_is_named(fitted, tmp_path, capsys, name, held, named):
    if held is not None:
        (tmp_path / name).write_bytes(held)
    assert encode(fitted, tmp_path, "out", f"--encode.input={tmp_path}/{name}") == 2
    assert named in capsys.readouterr().err
    if held is not None:  # mended, the same folder serves
        (tmp_path / name).write_bytes(b'{"text": "hi"}\n')
        assert encode(fitted, tmp_path, "again", f"--encode.input={tmp_path}/{name}") == 0


def test_what_is_missing_is_named(fitted, place, capsys):
    for flags, named in (
        (["--encode.output=x"], "--encode.input=FILE --encode.output=FOLDER"),
        ([f"--encode.input={place}/r.txt", f"--encode.output={place}/x"], "--encode.student=runs/NAME/index"),
        (
            [f"--encode.input={place}/r.txt", f"--encode.output={place}/x", f"--encode.student={place}"],
            "no student here",
        ),
    ):
        assert main(["encode", *flags]) == 2
        assert named in capsys.readouterr().err
    assert not (place / "x").exists()


def test_a_damaged_folder_is_named(fitted, place, whole, capsys):
    assert encode(fitted, place, "damaged") == 0
    folder = place / "damaged"
    vectors = folder / "part-00001.npy"
    bytes_ = bytearray(vectors.read_bytes())
    bytes_[-1] ^= 1
    vectors.write_bytes(bytes_)
    with pytest.raises(StoreError, match=r"part-00001\.npy: changed since it was written"):
        EncodedResponses(folder)
    vectors.write_bytes(bytes_[:-8])
    with pytest.raises(StoreError, match=r"part-00001\.npy: \d+ bytes, but \d+ were written"):
        EncodedResponses(folder)
    assert encode(fitted, place, "damaged") == 2
    assert "part-00001.npy" in capsys.readouterr().err
    vectors.unlink()
    with pytest.raises(StoreError, match=r"part-00001\.npy: missing"):
        EncodedResponses(folder)
    assert encode(fitted, place, "damaged") == 0  # makes what lacks
    assert content(folder) == whole
