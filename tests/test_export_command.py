"""``export --format``: from a run to an encoder that predicts, and evaluates, in PyTorch's place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxscript", reason="needs the extra `deploy`")
pytest.importorskip("onnxruntime", reason="needs the extra `deploy`")
pytest.importorskip("openvino", reason="needs the extra `deploy`")

from g2r_lightning.index import EncodedResponses, load_responses, read_manifest
from g2r_lightning.inference import Responder
from g2r_lightning.inference.deployment import load_deployed
from g2r_lightning.store.hashing import file_hash
from g2r_lightning.student.persistence import WEIGHTS, weights_hash
from tiny_experiment import at_step, results, run

# ModelCheckpoint tells of the folder that the run was copied from
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed from")


@pytest.fixture(scope="module")
def exported(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the fitted experiment, with the encoder of its best checkpoint for OpenVINO; returns the run."""
    copy = tmp_path_factory.mktemp("export") / "runs" / "first"
    shutil.copytree(fitted.parent / "runs" / "first", copy)
    assert run("export", copy / "config.yaml", f"--run.root={copy.parent}", "--format=openvino") == 0
    return copy


def test_the_export_lies_in_the_index_and_tells_what_it_is(exported):
    folder = exported / "index" / "deployed" / "openvino"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sorted(manifest["files"]) == sorted(p.name for p in folder.iterdir() if p.name != "manifest.json")
    assert (manifest["format"], manifest["precision"], manifest["run"]) == ("openvino", "float32", "first")
    assert manifest["checkpoint_sha256"] == file_hash(exported / "checkpoints" / manifest["checkpoint"])
    assert (
        manifest["checkpoint_sha256"] == json.loads((exported / "index/manifest.json").read_text())["checkpoint_sha256"]
    )
    quality = manifest["quality"]
    assert quality["contexts"] == 6 * 4  # all of the validation set
    assert quality["cosine_min"] > 0.99999
    assert quality["hits_at_1"] == quality["hits_at_1_pytorch"]
    assert {"torch", "openvino"} <= manifest["versions"].keys()
    plain = Responder.load(exported / "index").respond(["hi", "hello ?"], k=5)
    deployed = Responder.load(exported / "index", encoder="openvino").respond(["hi", "hello ?"], k=5)
    assert [reply.text for reply in deployed] == [reply.text for reply in plain]


def test_measured_hits_are_those_of_validation(exported):
    assert run("validate", exported / "config.yaml", f"--run.root={exported.parent}") == 0
    manifest = json.loads((exported / "index/deployed/openvino/manifest.json").read_text())
    expected = 100 * results(exported, "validation")["val/hits_at_1_of_20"]
    assert manifest["quality"]["hits_at_1_pytorch"] == pytest.approx(expected)


def test_test_and_predict_run_through_the_export(exported, tmp_path, capsys):
    flags = (f"--run.root={exported.parent}", "--encoder=openvino")
    assert run("test", exported / "config.yaml", *flags) == 0
    plain, deployed = results(exported, "test"), results(exported, "test-openvino-float32")
    for key in ("all/hits_at_1_of_20", "all/recall_at_10", "one/mrr_of_20"):
        assert deployed[key] == pytest.approx(plain[key])
    (tmp_path / "contexts.jsonl").write_text('["hi ?", "hello ."]\n["do you have a dog ?"]\n')
    for name, more in {"plain": flags[:1], "deployed": flags}.items():
        asked = (f"--predict.contexts={tmp_path}/contexts.jsonl", f"--predict.output={tmp_path}/{name}.jsonl")
        assert run("predict", exported / "config.yaml", *more, *asked) == 0
    replies = [
        [
            [reply["text"] for reply in json.loads(line)["replies"]]
            for line in (tmp_path / name).read_text().splitlines()
        ]
        for name in ("plain.jsonl", "deployed.jsonl")
    ]
    assert replies[0] == replies[1]
    other = at_step(exported, 1)
    assert run("test", exported / "config.yaml", *flags, f"--ckpt_path={other}") == 2
    assert "made of another checkpoint than" in capsys.readouterr().err


def test_what_cannot_be_exported_is_refused_before_anything_is_written(exported, tmp_path, monkeypatch, capsys):
    def refused(*flags: str) -> str:
        assert run("export", exported / "config.yaml", f"--run.root={exported.parent}", *flags) == 2
        return capsys.readouterr().err

    other = at_step(exported, 1)
    assert "was made of another checkpoint; name a folder" in refused("--format=onnx", f"--ckpt_path={other}")
    assert "something else than an export" in refused("--format=onnx", f"--output={exported}")
    assert "multiplies no bfloat16 on CPUs" in refused("--format=onnx", "--precision=bf16")
    assert "format: Expected one of 'openvino', 'onnx'" in refused("--format=tensorrt")
    assert "name the file to write" in refused()
    out = tmp_path / "out"
    flags = ("--format=onnx", f"--output={out}")
    assert "there are none: name a set under data.init_args.validation" in refused(*flags, "--data.validation=null")
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    assert "onnxscript is not installed: pip install 'g2r-lightning[deploy]'" in refused(*flags)
    assert not out.exists()
    assert not (exported / "index" / "deployed" / "onnx").exists()


def test_an_export_elsewhere_is_loaded_by_its_folder(exported, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(exported / "index" / "deployed" / "openvino", folder)
    encoder, _ = load_deployed(folder)
    assert encoder.dimension == 16
    assert Responder.load(exported / "index", encoder=folder).respond(["hi"])


@pytest.fixture(scope="module")
def input_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 40 replies, one of them longer than a pass may be."""
    path = tmp_path_factory.mktemp("replies") / "r.txt"
    path.write_text("".join(f"i like {' '.join(['tea'] * number)} .\n" for number in range(40)))
    return path


def test_encode_and_index_compute_through_the_export(exported, tmp_path, input_file):
    config, root = exported / "config.yaml", f"--run.root={exported.parent}"
    whole = (config, root, f"--encode.input={input_file}", "--encode.shard_size=16")
    folders = {name: tmp_path / name for name in ("plain", "named", "folder", "student")}
    assert run("encode", *whole, f"--encode.output={folders['plain']}") == 0
    assert run("encode", *whole, "--encoder=openvino", f"--encode.output={folders['named']}") == 0
    elsewhere = f"--encoder={exported}/index/deployed/openvino"
    assert run("encode", *whole, elsewhere, "--encode.token_budget=64", f"--encode.output={folders['folder']}") == 0
    student = f"--encode.student={exported}/index/student"
    assert run("encode", *whole, student, "--encoder=openvino", f"--encode.output={folders['student']}") == 0
    held = {name: EncodedResponses(folder) for name, folder in folders.items()}
    vectors = {name: np.concatenate([shard.vectors for shard in each.shards()]) for name, each in held.items()}
    for name in ("named", "folder", "student"):
        assert np.abs(vectors[name] - vectors["plain"]).max() < 1e-4
        assert not np.array_equal(vectors[name], vectors["plain"])  # computed by another
        manifest = json.loads((folders[name] / "manifest.json").read_text())
        assert manifest["precision"] == "openvino-float32"
        assert manifest["student"] == json.loads((folders["plain"] / "manifest.json").read_text())["student"]
    flags = (root, f"--index.input={input_file}", f"--index.output={tmp_path}/index")
    assert run("index", config, *flags, "--encoder=openvino") == 0
    manifest = read_manifest(tmp_path / "index")
    assert (manifest["precision"], manifest["responses"]) == ("openvino-float32", 40)
    assert np.array_equal(load_responses(tmp_path / "index").embeddings, vectors["named"])
    assert weights_hash(tmp_path / "index/student" / WEIGHTS) == weights_hash(exported / "index/student" / WEIGHTS)
    assert run("index", config, *flags) == 0  # by PyTorch: another one
    assert read_manifest(tmp_path / "index")["precision"] == "32-true"


def test_an_export_that_does_not_fit_encodes_nothing(exported, tmp_path, input_file, capsys):
    def refused(command: str, *flags: str) -> str:
        given = (
            f"--{command}.input={input_file}",
            f"--{command}.output={tmp_path}/out",
            f"--run.root={exported.parent}",
        )
        assert run(command, exported / "config.yaml", *given, *flags) == 2
        return capsys.readouterr().err

    for command in ("encode", "index"):
        assert "no exported encoder here; make it with `export --format=onnx`" in refused(command, "--encoder=onnx")
        assert "an index, no exported encoder; give openvino or onnx" in refused(command, f"--encoder={exported}/index")
        said = refused(command, "--encoder=openvino", f"--ckpt_path={at_step(exported, 1)}")
        assert "made of other weights than those of this student; export the same checkpoint again" in said
        said = refused(command, "--encoder=openvino", "--model.text.max_response_tokens=12", "--ckpt_path=none")
        assert "made of other weights" in said
    root = f"--run.root={exported.parent}"
    encoded = tmp_path / "encoded"
    assert (
        run("encode", exported / "config.yaml", root, f"--encode.input={input_file}", f"--encode.output={encoded}") == 0
    )
    said = refused("index", "--encoder=openvino", f"--index.input={encoded}")
    assert "holds vectors already, there is nothing to encode" in said
    assert not (tmp_path / "out").exists()
