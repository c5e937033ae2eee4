"""``index`` as a user runs it: every input, one process or two, stopped and continued, checked, refused."""

from __future__ import annotations

import ast
import dataclasses
import json
import logging
import random
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import g2r_lightning.commands.index as index_command
from g2r_lightning.cli import main
from g2r_lightning.commands import index_folder
from g2r_lightning.errors import ConfigError
from g2r_lightning.index import ResponseEncoding, choosing, load_responses, read_manifest, verify, weights_hash
from g2r_lightning.index.memory import GIB
from g2r_lightning.inference import Responder
from g2r_lightning.sections import IndexSettings
from g2r_lightning.student import PolyEncoder, StudentText, load_student, save_student
from tiny import WORDS

faiss = pytest.importorskip("faiss")
COUNT = 300
CONTEXTS = [["hi", "how are you ?"], ["i love pizza", "me too", "what about tea ?"], ["dog"]]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with ``r.jsonl``, 300 replies with tags, and ``contexts.jsonl``."""
    folder, draw = tmp_path_factory.mktemp("index"), random.Random(0)
    lines = []
    for number in range(COUNT):
        text = f"{' '.join(draw.choices(WORDS, k=draw.randint(1, 9)))} {number}"
        source = "original" if number % 3 else "llm"
        lines.append({"response": text, "source": source, "tags": [f"t{number % 2}"], "stars": number % 5})
    (folder / "r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    contexts = [[" ".join(draw.choices(WORDS, k=5)) for _ in range(draw.randint(1, 4))] for _ in range(150)]
    (folder / "contexts.jsonl").write_text("".join(json.dumps(context) + "\n" for context in contexts))
    return folder


@pytest.fixture(scope="module")
def exact(fitted, place) -> Path:
    """The index of ``r.jsonl`` as the command makes it; for tests that change nothing in it."""
    build(fitted, place, place / "exact")
    return place / "exact"


@pytest.fixture
def approximate(monkeypatch):
    """Let 300 responses count as many."""
    monkeypatch.setattr(choosing, "EXACT_UP_TO", 100)


def words(fitted: Path, place: Path, output: Path, *flags: str) -> list[str]:
    config = fitted.parent / "runs/first/config.yaml"
    return ["index", "-c", str(config), f"--index.input={place}/r.jsonl", f"--index.output={output}", *flags]


def build(fitted: Path, place: Path, output: Path, *flags: str) -> dict[str, Any]:
    assert main(words(fitted, place, output, *flags)) == 0
    verify(output)
    assert not output.with_name(f"{output.name}.work").exists()
    return read_manifest(output)


def answers(folder: Path, k: int = 5) -> list[list[str]]:
    return [[reply.text for reply in replies] for replies in Responder.load(folder).respond_all(CONTEXTS, k)]


def test_an_exact_index_of_jsonl_with_all_that_it_tells(fitted, place, exact):
    manifest = read_manifest(exact)
    assert (manifest["factory"], manifest["exact"], manifest["responses"]) == ("Flat", True, COUNT)
    assert manifest["columns"] == ["text", "source", "tags", "stars"]
    measured = manifest["measured"]
    assert measured["recall"] == 1.0
    assert measured["reached"]
    assert measured["p50_ms"] > 0
    assert measured["contexts"] == 24  # of the validation set: 6 dialogues of 5 turns
    assert measured["bytes"] == COUNT * 16 * 4
    first = read_manifest(fitted.parent / "runs/first/index")
    assert manifest["checkpoint_sha256"] == first["checkpoint_sha256"]
    index = load_responses(exact)
    records = [json.loads(line) for line in (place / "r.jsonl").read_text().splitlines()]
    humans_first = sorted(records, key=lambda record: record["source"] != "original")
    assert index.table.to_pylist() == [
        {"text": one["response"], "source": one["source"], "tags": one["tags"], "stars": one["stars"]}
        for one in humans_first
    ]


def test_the_experiments_own_responses_are_what_fit_answers_with(fitted, tmp_path):
    run = fitted.parent / "runs/first"
    assert main(["index", "-c", str(run / "config.yaml"), f"--index.output={tmp_path}/index"]) == 0
    ours, theirs = load_responses(tmp_path / "index"), load_responses(run / "index")
    assert ours.texts == theirs.texts
    assert ours.sources == theirs.sources
    assert np.abs(ours.embeddings - theirs.embeddings).max() < 1e-5
    assert answers(tmp_path / "index") == answers(run / "index")


def test_auto_measures_what_is_worth_it_and_takes_the_best(fitted, place, tmp_path, approximate, capsys):
    flags = (f"--index.contexts={place}/contexts.jsonl", "--index.num_contexts=120", "--index.recall=0.9")
    manifest = build(fitted, place, tmp_path / "index", *flags)
    measured = manifest["measured"]
    assert {point["factory"] for point in measured["points"]} == {
        "Flat", "IVF4,SQ8", "RR16,IVF4,RaBitQ", "IVF4,PQ4x4fs", "SQ8",
    }  # fmt: skip
    assert (measured["contexts"], measured["target"], measured["recall_at"]) == (120, 0.9, 10)
    assert measured["reached"]
    assert measured["worse_half"] >= 0.9
    assert all(one["p95_ms"] >= one["p50_ms"] > 0 for one in measured["points"])
    index = load_responses(tmp_path / "index")
    assert index.search_parameters == manifest["search"]
    assert (tmp_path / "index/index.faiss").exists() == (manifest["factory"] != "Flat")
    assert manifest["memory_limit"] > 0
    assert "what else can be had" in capsys.readouterr().out


def test_a_named_index_with_settings_answers_nearly_as_the_exact_one(fitted, place, tmp_path, exact, capsys):
    flags = ("--index.factory=IVF4,SQ8", '--index.search={"nprobe": 4, "refine": 3}')
    manifest = build(fitted, place, tmp_path / "index", *flags)
    assert manifest["search"] == {"nprobe": 4, "refine": 3}
    assert manifest["built"]["training_vectors"] == COUNT
    assert manifest["measured"]["recall"] > 0.95
    assert [one[0] for one in answers(tmp_path / "index")] == [one[0] for one in answers(exact)]
    said = capsys.readouterr().out
    for figure in ("300", "IVF4,SQ8", "nprobe 4, refine 3", "recall@10 on 24 contexts", "p50 and p95"):
        assert figure in said


def test_what_is_encoded_already_is_not_encoded_again(fitted, place, tmp_path, monkeypatch):
    config = str(fitted.parent / "runs/first/config.yaml")
    flags = ["--encode.dtype=float16", f"--encode.input={place}/r.jsonl", f"--encode.output={tmp_path}/encoded"]
    assert main(["encode", "-c", config, *flags]) == 0
    monkeypatch.setattr(ResponseEncoding, "write", lambda *_: pytest.fail("encoded again"))
    manifest = build(fitted, place, tmp_path / "index", f"--index.input={tmp_path}/encoded")
    assert (manifest["dtype"], manifest["factory"]) == ("float16", "SQfp16")
    assert manifest["columns"] == ["text", "source", "tags", "stars"]
    assert manifest["input"]["kind"] == "jsonl"
    assert (tmp_path / "encoded/manifest.json").exists()
    again = ["index", f"--index.input={tmp_path}/index", f"--index.output={tmp_path}/flat", "--index.dtype=float32"]
    assert main([*again, f"--index.contexts={place}/contexts.jsonl"]) == 0  # an index has its student with it
    flat = read_manifest(tmp_path / "flat")
    assert (flat["dtype"], flat["factory"], flat["measured"]["contexts"]) == ("float32", "Flat", 150)
    assert flat["checkpoint_sha256"] == manifest["checkpoint_sha256"]
    assert load_responses(tmp_path / "flat").table.equals(load_responses(tmp_path / "index").table)
    assert answers(tmp_path / "flat") == answers(tmp_path / "index")


def test_stopped_and_continued(fitted, place, tmp_path, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    output, flags = tmp_path / "index", ("--index.factory=IVF4,SQ8", "--index.recall=0.5")
    with monkeypatch.context() as patch:
        patch.setattr(index_folder, "choose", stop)
        assert main(words(fitted, place, output, *flags)) == 130
    assert (tmp_path / "index.work/encoded/manifest.json").exists()
    assert not output.exists()
    with monkeypatch.context() as patch:  # killed when all was built, and nothing in its place
        patch.setattr(index_folder, "save_student", stop)
        assert main(words(fitted, place, output, *flags)) == 130
    built = next((tmp_path / "index.work").glob("candidate-*/index.faiss")).read_bytes()
    monkeypatch.setattr(ResponseEncoding, "write", lambda *_: pytest.fail("encoded again"))
    manifest = build(fitted, place, output, *flags)
    assert (output / "index.faiss").read_bytes()[:100] == built[:100]
    assert manifest["built"]["build_seconds"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_the_student_of_an_index_is_float32_whatever_encoded(fitted, place, exact, tmp_path, precision):
    built = build(fitted, place, tmp_path / "index", f"--trainer.precision={precision}")
    (found, _), (expected, _) = (load_student(folder / "student") for folder in (tmp_path / "index", exact))
    assert {weight.dtype for weight in found.parameters()} == {torch.float32}
    assert weights_hash(found) == weights_hash(expected)
    ours, plain = (load_responses(folder).embeddings for folder in (tmp_path / "index", exact))
    assert ours.dtype == np.float32
    assert not np.array_equal(ours, plain)
    cosines = (ours * plain).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(plain, axis=1)
    assert cosines.min() > 0.999
    assert built["checkpoint_sha256"] == read_manifest(exact)["checkpoint_sha256"]


def test_a_finished_index_is_left_alone_and_another_one_takes_its_place(fitted, place, exact, tmp_path, capsys, caplog):
    shutil.copytree(exact, tmp_path / "index")
    stamp = (tmp_path / "index/manifest.json").stat().st_mtime_ns
    (tmp_path / "index/deployed/onnx").mkdir(parents=True)
    (tmp_path / "index/deployed/onnx/weights").write_text("an export of this student")
    with caplog.at_level(logging.INFO):
        build(fitted, place, tmp_path / "index")
    assert "is finished; delete it, or change a setting" in caplog.text
    assert (tmp_path / "index/manifest.json").stat().st_mtime_ns == stamp
    vectors = tmp_path / "index/embeddings.npy"
    vectors.write_bytes(vectors.read_bytes()[:-9])  # after a kill behind the build, say
    build(fitted, place, tmp_path / "index")
    assert re.search(r"embeddings\.npy: \d+ bytes, but \d+ were written; build the index again: that is", caplog.text)
    verify(tmp_path / "index")
    weights = tmp_path / "index/student/model.safetensors"
    for harm in (weights.read_bytes()[:-9], b"", None):
        weights.write_bytes(harm) if harm is not None else weights.unlink()
        build(fitted, place, tmp_path / "index")
        verify(tmp_path / "index")
        assert (tmp_path / "index/deployed/onnx/weights").is_file()
    (tmp_path / ".index.work-gone-0a1b2c3d").mkdir()  # of a process that was killed behind all
    build(fitted, place, tmp_path / "index")
    assert not (tmp_path / ".index.work-gone-0a1b2c3d").exists()
    vectors.write_bytes(vectors.read_bytes()[:-9])
    (tmp_path / "index/overlay/change-000001").mkdir(parents=True)
    assert main(words(fitted, place, tmp_path / "index")) == 2
    said = capsys.readouterr().err
    assert "embeddings.npy" in said
    assert "compact" not in said
    shutil.rmtree(tmp_path / "index/overlay")
    build(fitted, place, tmp_path / "index")
    (tmp_path / "index/overlay/change-000001").mkdir(parents=True)
    assert main(words(fitted, place, tmp_path / "index", "--index.dtype=float16")) == 2
    assert "which a new build would lose: fold them in with `index compact`" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "index/overlay")
    second = build(fitted, place, tmp_path / "index", "--index.dtype=float16")
    assert second["dtype"] == "float16"
    assert (tmp_path / "index/deployed/onnx/weights").read_text() == "an export of this student"
    build(fitted, place, tmp_path / "index", "--ckpt_path=none")
    assert not (tmp_path / "index/deployed").exists()  # of another student


def test_of_several_processes_the_first_alone_builds(fitted, place, tmp_path, monkeypatch):
    """All of them encode (``encode`` is tested with two); what follows is not their business."""
    second = SimpleNamespace(is_global_zero=False)
    monkeypatch.setattr(index_command, "encoding_trainer", lambda *_: (second, "32-true"))
    monkeypatch.setattr(index_command, "first_process", lambda: False)
    monkeypatch.setattr(index_command, "run_encoding", lambda *_: None)
    assert main(words(fitted, place, tmp_path / "index")) == 0
    assert not list(tmp_path.iterdir())


def test_a_poly_encoder_is_tuned_on_its_codes(tiny_encoder_folder, place, tmp_path):
    torch.manual_seed(0)
    text = StudentText(max_context_tokens=32, max_response_tokens=16).bind(str(tiny_encoder_folder))
    poly = PolyEncoder(str(tiny_encoder_folder), codes=3)
    save_student(poly, text, tmp_path / "poly")
    flags = [f"--index.student={tmp_path}/poly", f"--index.contexts={place}/contexts.jsonl", "--index.recall=0.5"]
    input_ = [f"--index.input={place}/r.jsonl", f"--index.output={tmp_path}/index", "--trainer.accelerator=cpu"]
    assert main(["index", *flags, *input_, "--index.factory=IVF4,SQ8"]) == 0
    manifest = read_manifest(tmp_path / "index")
    assert (manifest["measured"]["contexts"], manifest["measured"]["reached"]) == (150, True)
    assert "checkpoint_sha256" not in manifest
    assert len(Responder.load(tmp_path / "index").respond(["hi"], 3)) == 3


def test_a_student_alone_gives_an_exact_index_and_says_what_it_lacks(fitted, place, tmp_path, approximate, caplog):
    student = [f"--index.student={fitted.parent}/runs/first/index", f"--index.input={place}/r.jsonl"]
    cpu = "--trainer.accelerator=cpu"
    with caplog.at_level(logging.WARNING):
        assert main(["index", *student, f"--index.output={tmp_path}/index", cpu]) == 0
    assert "no real contexts, so nothing can be tuned" in caplog.text
    manifest = read_manifest(tmp_path / "index")
    assert (manifest["exact"], manifest["measured"]) == (True, None)
    assert manifest["run"] == "first"


def test_verify_checks_a_folder_and_builds_nothing(fitted, exact, tmp_path, capsys, caplog):
    shutil.copytree(exact, tmp_path / "index")
    check = ["index", "--verify", f"--index.output={tmp_path}/index"]
    with caplog.at_level(logging.INFO):
        assert main(check) == 0
    assert "300 responses, every file as it was written" in caplog.text
    path = tmp_path / "index/responses.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert main(check) == 2
    assert "changed or lost since they were written: responses.arrow" in capsys.readouterr().err
    assert main(["index", "--verify", f"--run.root={tmp_path}", "--run.name=none"]) == 2  # the run's own
    assert f"{tmp_path}/none/index: no response index here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--index.memory_limit=0.00001", "--index.factory=Flat"], "what would fit: "),
        (["--index.contexts={place}/none.jsonl"], "none.jsonl: no such file"),
        (["--index.output={place}"], "this is no index, and would be replaced"),
    ],
)
def test_what_cannot_be_is_named(fitted, place, tmp_path, capsys, flags, named):
    assert main(words(fitted, place, tmp_path / "index", *(flag.format(place=place) for flag in flags))) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "index").exists()


def test_before_anything_is_encoded_it_is_known_whether_it_fits(fitted, place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ResponseEncoding, "write", lambda *_: pytest.fail("encoded"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    assert main(words(fitted, place, tmp_path / "index")) == 2
    assert "of disk, and 0.00 GiB are free" in capsys.readouterr().err


def test_half_of_the_free_memory_may_be_taken(monkeypatch):
    monkeypatch.setattr(index_command, "free_memory", lambda: 6 * GIB)
    assert index_command.wish_of(IndexSettings()).limit == 3 * GIB
    assert index_command.wish_of(IndexSettings(memory_limit=1.5)).limit == 1.5 * GIB
    assert index_command.wish_of(IndexSettings(), "float16").dtype == "float16"
    assert index_command.wish_of(IndexSettings(dtype="float32"), "float16").dtype == "float32"
    monkeypatch.setattr(index_command, "free_memory", lambda: None)
    assert index_command.wish_of(IndexSettings()).limit == index_command.UNKNOWN
    with pytest.raises(ConfigError, match=r"--index\.recall=1\.5: a share, above 0 and at most 1"):
        index_command.wish_of(IndexSettings(recall=1.5))


def test_what_is_missing_is_named(fitted, place, tmp_path, capsys):
    output = f"--index.output={tmp_path}/index"
    student = f"--index.student={fitted.parent}/runs/first/index"
    for flags, named in (
        ([output, f"--index.input={place}/r.jsonl"], "`index` needs a student: -c runs/NAME/config.yaml"),
        ([output, student], "name a response set with --index.input=FILE"),
    ):
        assert main(["index", *flags]) == 2
        assert named in capsys.readouterr().err


def test_vectors_of_another_student_are_refused(fitted, place, tmp_path, capsys):
    run = fitted.parent / "runs/first"
    given = ["index", "-c", str(run / "config.yaml"), f"--index.output={tmp_path}/x", "--ckpt_path=none"]
    assert main([*given, f"--index.input={run}/index"]) == 2
    assert "its vectors were made by another student" in capsys.readouterr().err


def test_a_named_index_that_finds_too_little_is_refused_and_its_work_kept(fitted, place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(choosing, "lines_of", lambda *_: [[{"nprobe": 1, "refine": 1}]])
    flags = ("--index.factory=IVF4,SQ8", "--index.recall=1.0")
    assert main(words(fitted, place, tmp_path / "index", *flags)) == 2
    said = capsys.readouterr().err
    assert "--index.factory=IVF4,SQ8: no setting reaches recall@10 1 in both halves" in said
    assert "Accept what it reaches with --index.recall=0." in said
    assert (tmp_path / "index.work").is_dir()
    build(fitted, place, tmp_path / "index", "--index.factory=IVF4,SQ8", "--index.recall=0.1")


def test_the_documentation_is_true(fitted, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[1] / "docs/index.md").read_text()
    known = {field.name for field in dataclasses.fields(IndexSettings)}
    assert set(re.findall(r"--index\.(\w+)", page)) <= known
    assert known - {"field", "source", "shard_size", "token_budget"} <= set(re.findall(r"--index\.(\w+)", page))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(fitted.parent / "runs/first/index", tmp_path / "runs/quickstart/index")
    exec(page.partition("```python\n")[2].partition("```")[0], {})
    texts = load_responses(tmp_path / "runs/quickstart/index").texts
    assert all(text in texts for text in ast.literal_eval(capsys.readouterr().out))
