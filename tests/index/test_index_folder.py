"""An index as a folder: moved, cut short, tampered with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from g2r_lightning.errors import G2RError
from g2r_lightning.index import load_index, read_manifest, save_index, verify
from g2r_lightning.inference import Responder

CONTEXTS = [["hi", "how are you ?"], ["i love pizza 🍕"], ["dog " * 1000, "what ?"]]


@pytest.fixture
def folder(fitted, tmp_path) -> Path:
    """A copy of the fitted run's index, away from the run: a folder that was moved."""
    shutil.copytree(fitted.parent / "runs/first/index", tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def test_a_moved_index_answers_as_before(fitted, folder):
    verify(folder)
    here, there = Responder.load(folder), Responder.load(fitted.parent / "runs/first/index")
    assert here.respond_all(CONTEXTS, k=5) == there.respond_all(CONTEXTS, k=5)


def test_saved_and_loaded_again_gives_identical_replies(folder, tmp_path):
    index, encoder, text = load_index(folder)
    save_index(tmp_path / "again", index, encoder, text, {"run": "again"})
    verify(tmp_path / "again")
    assert Responder.load(tmp_path / "again").respond_all(CONTEXTS, 5) == Responder.load(folder).respond_all(
        CONTEXTS, 5
    )
    assert read_manifest(tmp_path / "again")["run"] == "again"


def test_saving_replaces_what_is_there_and_leaves_nothing_beside_it(folder):
    index, encoder, text = load_index(folder)
    (folder / "stale").write_text("old")
    (folder.with_name(".elsewhere-new-1") / "student").mkdir(parents=True)  # of a process that was killed
    save_index(folder, index, encoder, text, {})
    assert not (folder / "stale").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["elsewhere"]
    verify(folder)


def test_the_manifest_tells_where_it_comes_from(fitted, folder):
    import hashlib

    manifest = read_manifest(folder)
    assert manifest["run"] == "first"
    assert manifest["exact"] is True
    checkpoint = fitted.parent / "runs/first/checkpoints" / manifest["checkpoint"]
    assert manifest["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert manifest["dimension"] == 16
    assert set(manifest["files"]) == {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"
    }


@pytest.mark.parametrize("name", ["embeddings.npy", "index.faiss", "responses.parquet", "student/model.safetensors"])
def test_a_file_cut_short_is_refused(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(G2RError, match=rf"{path.name}: \d+ bytes, but \d+ were written"):
        Responder.load(folder)


@pytest.mark.parametrize("name", ["embeddings.npy", "student/tokenizer.json"])
def test_verify_finds_a_flipped_byte(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(G2RError, match=f"changed or lost since they were written: {name}"):
        verify(folder)


def test_a_missing_file_is_named(folder):
    (folder / "embeddings.npy").unlink()
    with pytest.raises(G2RError, match=r"embeddings\.npy"):
        Responder.load(folder)
    with pytest.raises(G2RError, match=r"embeddings\.npy"):
        verify(folder)


@pytest.mark.parametrize(
    "name",
    ["embeddings.npy", "responses.parquet", "index.faiss", "student/model.safetensors", "student/tokenizer.json"],
)
def test_a_garbled_file_of_the_right_size_is_named(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[:40] = bytes(40)
    (folder / name).write_bytes(content)
    with pytest.raises(G2RError, match=Path(name).name if "tokenizer" not in name else "student"):
        Responder.load(folder)


@pytest.mark.parametrize("text", ["[]", '{"schema_version": 1}'])
def test_a_manifest_that_lacks_what_it_must_tell_is_damaged(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(G2RError, match=r"manifest\.json: damaged"):
        Responder.load(folder)


def test_a_file_is_no_index(folder):
    with pytest.raises(G2RError, match="no response index here"):
        Responder.load(folder / "manifest.json")


def test_what_is_no_index_says_how_to_make_one(folder, tmp_path):
    with pytest.raises(G2RError, match="no response index here; `fit` builds one"):
        Responder.load(tmp_path / "nowhere")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    with pytest.raises(G2RError, match="schema version 99"):
        Responder.load(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(G2RError, match="damaged"):
        Responder.load(folder)


def test_a_damaged_student_is_named(folder):
    path = folder / "student/student.json"
    text = path.read_text()
    path.write_text(text.replace('"BiEncoder"', '"XxEncoder"'))
    with pytest.raises(G2RError, match="student is damaged"):
        Responder.load(folder)


def test_no_pickle_is_in_it(folder):
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pt", ".bin", ".ckpt")]
