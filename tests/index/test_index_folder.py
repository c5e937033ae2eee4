"""An index as a folder: moved, cut short, tampered with."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from g2r_lightning.errors import G2RError
from g2r_lightning.index import ResponseIndex, TextColumn, load_index, load_responses, read_manifest, save_index, verify
from g2r_lightning.inference import Responder
from g2r_lightning.store.json_file import write_json

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
    manifest = read_manifest(folder)
    assert manifest["run"] == "first"
    assert manifest["exact"] is True
    checkpoint = fitted.parent / "runs/first/checkpoints" / manifest["checkpoint"]
    assert manifest["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert manifest["dimension"] == 16
    assert set(manifest["files"]) == {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"
    }


@pytest.fixture
def approximate(folder) -> Path:
    """The same responses behind an index of FAISS."""
    pytest.importorskip("faiss")
    index, encoder, text = load_index(folder)
    metadata = pa.table({"length": [len(one) for one in index.texts]})
    vectors = np.asarray(index.embeddings, np.float16)
    index = ResponseIndex(index.texts, index.sources, vectors, "SQ8", search={"refine": 7}, metadata=metadata)
    save_index(folder, index, encoder, text, {"run": "first"})
    return folder


def test_everything_is_mapped_into_memory_and_comes_back(fitted, approximate):
    index, manifest = load_responses(approximate), read_manifest(approximate)
    assert isinstance(index.texts, TextColumn)
    assert isinstance(index.sources, TextColumn)
    assert isinstance(index.embeddings, np.memmap)
    assert index.embeddings.dtype == np.float16
    assert index.search_parameters == manifest["search"] == {"refine": 7}
    assert (manifest["schema_version"], manifest["dtype"], manifest["exact"]) == (2, "float16", False)
    assert manifest["columns"] == index.table.column_names == ["text", "source", "length"]
    assert index.table["length"].to_pylist() == [len(text) for text in index.texts]
    there = load_responses(fitted.parent / "runs/first/index")
    assert index.texts == there.texts
    assert not (fitted.parent / "runs/first/index/index.faiss").exists()  # an exact search needs none
    assert isinstance(there.embeddings, np.memmap)


def test_half_precision_and_codes_cost_little(fitted, approximate):
    here, there = Responder.load(approximate), Responder.load(fitted.parent / "runs/first/index")
    for left, right in zip(here.respond_all(CONTEXTS, 3), there.respond_all(CONTEXTS, 3), strict=True):
        assert [reply.score for reply in left] == pytest.approx([reply.score for reply in right], abs=0.02)


@pytest.mark.parametrize("factory", ["Flat", "HNSW8,Flat"])
def test_folders_of_schema_1_are_read(fitted, folder, factory):
    faiss = pytest.importorskip("faiss")
    index = load_responses(fitted.parent / "runs/first/index")
    pq.write_table(index.table, folder / "responses.parquet")
    (folder / "responses.arrow").unlink()
    old = faiss.index_factory(index.embeddings.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    old.add(index.embeddings)
    faiss.write_index(old, str(folder / "index.faiss"))
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    manifest = {
        "schema_version": 1, "factory": factory, "responses": len(index), "dimension": 16, "exact": factory == "Flat",
        "files": {
            str(path.relative_to(folder)): {
                "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()
            }
            for path in files
        },
    }  # fmt: skip
    write_json(folder / "manifest.json", manifest)
    verify(folder)
    assert load_responses(folder).table.equals(index.table)
    here, there = Responder.load(folder), Responder.load(fitted.parent / "runs/first/index")
    for left, right in zip(here.respond_all(CONTEXTS, 3), there.respond_all(CONTEXTS, 3), strict=True):
        assert [reply.text for reply in left] == [reply.text for reply in right]
    (folder / "responses.parquet").write_bytes(b"")
    with pytest.raises(G2RError, match=r"responses\.parquet: 0 bytes"):
        Responder.load(folder)


def test_without_faiss_an_approximate_index_is_searched_exactly(approximate, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "faiss" else pytest.fail(name))
    index = load_responses(approximate)
    assert index.exact
    assert index.faiss_index is None


@pytest.mark.parametrize("name", ["embeddings.npy", "index.faiss", "responses.arrow", "student/model.safetensors"])
def test_a_file_cut_short_is_refused(approximate, name):
    folder = approximate
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
    ("name", "place"),
    [
        ("embeddings.npy", slice(0, 40)),
        ("responses.arrow", slice(0, 40)),
        ("responses.arrow", slice(-40, None)),
        ("index.faiss", slice(0, 40)),
        ("student/model.safetensors", slice(0, 40)),
        ("student/tokenizer.json", slice(0, 40)),
    ],
)
def test_a_garbled_file_of_the_right_size_is_named(approximate, name, place):
    folder = approximate
    content = bytearray((folder / name).read_bytes())
    content[place] = bytes(40)
    (folder / name).write_bytes(content)
    with pytest.raises(G2RError, match=Path(name).name if "tokenizer" not in name else "student"):
        Responder.load(folder)


@pytest.mark.parametrize("text", ["[]", '{"schema_version": 1}'])
def test_a_manifest_that_lacks_what_it_must_tell_is_damaged(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(G2RError, match=r"manifest\.json: damaged"):
        Responder.load(folder)


def test_files_that_do_not_belong_together_are_refused(approximate):
    """Each as it was written, but of two indexes: sizes agree with the manifest, contents not with each other."""
    faiss = pytest.importorskip("faiss")
    other = faiss.index_factory(16, "SQ8", faiss.METRIC_INNER_PRODUCT)
    other.train(np.eye(16, dtype=np.float32))
    other.add(np.eye(16, dtype=np.float32)[:3])
    faiss.write_index(other, str(approximate / "index.faiss"))
    manifest = json.loads((approximate / "manifest.json").read_text())
    content = (approximate / "index.faiss").read_bytes()
    told = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["files"]["index.faiss"] = told
    write_json(approximate / "manifest.json", manifest)
    with pytest.raises(G2RError, match=r"index\.faiss is over 3 vectors of 16 dimensions"):
        load_responses(approximate)


def test_a_file_is_no_index(folder):
    with pytest.raises(G2RError, match="no response index here"):
        Responder.load(folder / "manifest.json")


def test_what_is_no_index_says_how_to_make_one(folder, tmp_path):
    with pytest.raises(G2RError, match="no response index here; `fit` builds one at <run>/index, `index` one"):
        Responder.load(tmp_path / "nowhere")
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", manifest | {"schema_version": 99})
    with pytest.raises(G2RError, match="schema version 99"):
        Responder.load(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(G2RError, match="damaged"):
        Responder.load(folder)


def test_a_changed_student_is_named(folder):
    path = folder / "student/student.json"
    text = path.read_text()
    path.write_text(text.replace('"BiEncoder"', '"XxEncoder"'))
    with pytest.raises(G2RError, match=r"student/student\.json: changed since"):
        Responder.load(folder)


def test_no_pickle_is_in_it(folder):
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pt", ".bin", ".ckpt")]
