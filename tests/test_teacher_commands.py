"""``generate`` and ``score`` as a user runs them: one process or two, killed and continued, estimated, on a file."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from g2r_lightning.cli import main
from g2r_lightning.paths import alone_in
from g2r_lightning.store import CandidateStore
from g2r_lightning.store.manifest import MANIFEST
from teacher.tiny_models import MAKERS
from tiny import write_dialogues

EXPERIMENT = """
seed_everything: 3
data:
  class_path: g2r_lightning.data.DialogueDataModule
  init_args:
    train: [{class_path: g2r_lightning.dialogue.readers.JsonlReader, init_args: {path: train.jsonl}}]
teacher:
  class_path: g2r_lightning.teacher.CausalTeacher
  init_args: {name_or_path: gpt2, dtype: float64}
decodings:
  - {num_replies: 2, max_tokens: 8}
  - {num_replies: 1, method: beam, num_beams: 3, max_tokens: 8}
filters:
  - {class_path: g2r_lightning.filters.Length, init_args: {min_characters: 2}}
scoring: {name: tiny, prior: "contexts:2"}
trainer: {accelerator: cpu}
"""
SHARD = 4  # contexts; 512 would be one shard here
READER = "{{class_path: g2r_lightning.dialogue.readers.JsonlReader, init_args: {{path: {}}}}}"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher-commands")
    torch.manual_seed(0)
    model, tokenizer = MAKERS["gpt2"](folder / "gpt2")
    model.save_pretrained(folder / "gpt2")
    tokenizer.save_pretrained(folder / "gpt2")
    write_dialogues(folder / "train.jsonl", count=24, turns=5)
    write_dialogues(folder / "other.jsonl", count=24, turns=5, seed=1)
    (folder / "x.yaml").write_text(EXPERIMENT)
    return folder


@pytest.fixture
def here(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workplace)
    return workplace


def run(command: str, store: str, *flags: str) -> int:
    return main([command, "-c", "x.yaml", f"--store={store}", *flags, f"--shard_size={SHARD}"])


def start(folder: Path, command: str, store: str, *flags: str, **variables: str) -> subprocess.Popen[bytes]:
    """Start a command as a process of its own; what it says goes to ``<store>.log``."""
    words = [sys.executable, "-m", "g2r_lightning", command, "-c", "x.yaml", f"--store={store}", *flags]
    words.append(f"--shard_size={SHARD}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **variables}
    with (folder / f"{store}.log").open("ab") as log:
        return subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log)


def content(store: Path) -> dict[str, Any]:
    """Return every file's rows and notes, and the manifests, by path."""
    found: dict[str, Any] = {}
    for path in sorted(store.rglob("*.parquet")):
        table = pq.read_table(path)
        found[str(path.relative_to(store))] = (table.to_pylist(), table.schema.metadata)
    for path in sorted(store.rglob(MANIFEST)):
        found[str(path.relative_to(store))] = json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def whole(workplace: Path) -> dict[str, Any]:
    """The content of a store that one process made without a break."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        assert run("generate", "whole") == 0
        assert run("score", "whole") == 0
    return content(workplace / "whole")


def test_a_store_is_made_and_told_of(here: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    store = CandidateStore("whole")
    assert len(store.candidates.shards) == 24
    assert store.candidates.num_examples == 96
    assert {"original", "generated"} == set(store.table(["source"])["source"].to_pylist())
    assert store.candidates.sampling["decodings"][1]["num_beams"] == 3
    assert store.candidates.sampling["filters"][0]["name"] == "Length"
    summary = (here / "whole/candidates/summary.md").read_text()
    assert "96 contexts answered" in summary
    assert "| written | 288 | 100.0% |" in summary
    assert all(f"| dropped: {reason} |" in summary for reason in ("empty", "duplicate", "Length"))  # none too
    assert summary.count("*original*") == 10
    told = (here / "whole/scores/tiny/summary.md").read_text()
    assert "generated:" in told
    assert "original: 96 candidates" in told
    store.verify()


def test_two_processes_make_the_same_store(workplace: Path, whole: dict[str, Any]) -> None:
    for command in ("generate", "score"):
        process = start(workplace, command, "two", "--trainer.devices=2", "--trainer.strategy=ddp")
        assert process.wait(timeout=240) == 0, (workplace / "two.log").read_text()
    assert content(workplace / "two") == whole


@pytest.mark.slow
def test_two_nodes_make_the_same_store(workplace: Path, whole: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = str(listening.getsockname()[1])
    flags = ("--trainer.devices=1", "--trainer.num_nodes=2", "--trainer.strategy=ddp")
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    nodes = [start(workplace, "generate", "nodes", *flags, NODE_RANK=str(rank), **place) for rank in range(2)]
    assert [node.wait(timeout=240) for node in nodes] == [0, 0], (workplace / "nodes.log").read_text()
    candidates = {name: held for name, held in whole.items() if name.startswith("candidates/")}
    assert content(workplace / "nodes") == candidates


def test_another_prior_of_the_same_teacher_reads_no_context_again(
    here: Path, whole: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    told = "likelihoods given the context are those of the score set 'tiny'"
    for store in ("again", "anew"):
        shutil.copytree(here / "whole", here / store)
    shutil.rmtree(here / "anew/scores")
    found = {}
    for store in ("again", "anew"):
        caplog.clear()
        assert run("score", store, "--scoring.prior=empty", "--scoring.name=second") == 0
        assert (told in caplog.text) == (store == "again")
        found[store] = {name: held for name, held in content(here / store).items() if "second" in name}
    assert found["again"] == found["anew"]
    caplog.clear()
    assert run("score", "again", "--scoring.name=narrow", "--teacher.dtype=float32") == 0
    assert told not in caplog.text  # another teacher tells its own


@pytest.mark.parametrize("command", ["generate", pytest.param("score", marks=pytest.mark.slow)])
def test_killed_and_continued_is_the_same_store(here: Path, whole: dict[str, Any], command: str) -> None:
    store, folder = f"killed-{command}", "candidates" if command == "generate" else "scores/tiny"
    if command == "score":
        assert run("generate", store) == 0
    process = start(here, command, store)
    while not (found := list((here / store / folder).glob("part-*.parquet"))) and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait(timeout=60)
    before = {path: path.stat().st_mtime_ns for path in (here / store / folder).glob("part-*.parquet")}
    assert 0 < len(found) <= len(before) < 24, (here / f"{store}.log").read_text()
    assert not (here / store / folder / MANIFEST).exists()
    assert run(command, store) == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())  # what was there stayed
    if command == "generate":
        assert run("score", store) == 0
    assert content(here / store) == whole
    assert not list((here / store).rglob("*.tmp"))


def test_estimate_writes_nothing(here: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", "none", "--estimate") == 0
    printed = capsys.readouterr().out
    assert "hours on one device" in printed
    assert "288" in printed  # replies of the whole pass
    assert not (here / "none").exists()
    assert run("score", "whole", "--estimate=true", "--scoring.name=other") == 0
    assert "size of the store" in capsys.readouterr().out
    assert not (here / "whole/scores/other").exists()


def test_an_estimate_of_scoring_looks_at_the_whole_store(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first shard of these holds the short ones alone."""
    turns = [["hi", "yes"]] * SHARD + [["hi", "music " * 30]] * SHARD
    Path("uneven.jsonl").write_text("".join(json.dumps({"turns": own}) + "\n" for own in turns))
    reader = "{class_path: g2r_lightning.dialogue.readers.JsonlReader, init_args: {path: uneven.jsonl}}"
    flags = [f"--data.train=[{reader}]", "--decodings=[{num_replies: 1, max_tokens: 4}]", "--scoring.prior=none"]
    assert run("generate", "uneven", *flags) == 0
    capsys.readouterr()
    assert run("score", "uneven", *flags, "--estimate=true") == 0
    told = next(line for line in capsys.readouterr().out.splitlines() if " reply tokens  " in line)
    assert run("score", "uneven", *flags) == 0
    assert told.split("│")[2].strip() == str(CandidateStore("uneven").scores("tiny").num_tokens.sum())


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--seed_everything=4"], "sampling.seed: store has 3, this experiment has 4"),
        (
            [
                f"--teacher.template{more}"
                for more in ("=CausalTemplate", ".max_context_tokens=99", ".max_response_tokens=64")
            ],
            "template.max_context_tokens: store has 192, this experiment has 99",
        ),
        (["--teacher.dtype=float32"], 'teacher.dtype: store has "float64", this experiment has "float32"'),
        (["--filters=null"], "sampling.filters"),
        (["--decodings=null", "--sampling.max_tokens=5"], "sampling.decodings"),
        ([f"--data.train=[{READER.format('other.jsonl')}]"], "data_hash: store has "),
    ],
)
def test_another_question_to_the_same_folder_is_refused_with_both_values(
    here: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str], flags: list[str], named: str
) -> None:
    assert run("generate", "whole", *flags) == 2
    assert named in capsys.readouterr().err
    assert content(here / "whole") == whole


def test_any_candidates_can_be_scored(here: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    store = CandidateStore("whole")
    stored = list(store.examples())[:20]
    lines = [{"context": list(e.context), "candidates": [c.response for c in e.candidates]} for e in stored]
    Path("some.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = [
        "--teacher=CausalTeacher",
        "--teacher.name_or_path=gpt2",
        "--teacher.dtype=float64",
        "--scoring.prior=none",
    ]
    assert main(["score", *flags, "--candidates=some.jsonl", "--output=scored.jsonl"]) == 0
    scored = [json.loads(line) for line in Path("scored.jsonl").read_text().splitlines()]
    assert [line["context"] for line in scored] == [line["context"] for line in lines]
    assert [[c["text"] for c in line["candidates"]] for line in scored] == [line["candidates"] for line in lines]
    known = store.scores("tiny")
    for example, line in zip(stored, scored, strict=True):
        rows = store.rows[example.example_id]
        totals = [c["log_likelihood"] for c in line["candidates"]]
        assert totals == pytest.approx(known.log_likelihood[rows.start : rows.stop].tolist(), abs=1e-9)
        assert [c["num_tokens"] for c in line["candidates"]] == known.num_tokens[rows.start : rows.stop].tolist()
    Path("bad.jsonl").write_text('{"context": ["hi"], "candidates": ["a"]}\n{"context": ["hi"]}\n')
    assert main(["score", *flags, "--candidates=bad.jsonl", "--output=scored.jsonl"]) == 2
    assert "bad.jsonl:2:" in capsys.readouterr().err


def test_who_only_writes_cannot_score(here: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    flags = [
        "--teacher=g2r_lightning.teacher.EndpointTeacher",
        "--teacher.base_url=http://127.0.0.1:9/v1",
        "--teacher.model=x",
    ]
    assert run("score", "whole", *flags) == 2
    assert "EndpointTeacher writes replies but tells no token likelihoods" in capsys.readouterr().err


SCORING = ["--teacher=CausalTeacher", "--teacher.name_or_path=gpt2", "--teacher.dtype=float64", "--scoring.prior=none"]


def test_lines_of_candidates_keep_their_other_fields(here: Path, whole: dict[str, Any]) -> None:
    line = {"id": "q\ud8001", "context": ["hi", "\u2028"], "candidates": ["a", "", "a", "b " * 400], "by": {"bm25": 3}}
    Path("fields.jsonl").write_text(json.dumps(line) + "\n")
    assert main(["score", *SCORING, "--candidates=fields.jsonl", "--output=fields-out.jsonl"]) == 0
    scored = json.loads(Path("fields-out.jsonl").read_text(encoding="utf-8"))
    assert [one["text"] for one in scored["candidates"]] == line["candidates"]
    assert [one["num_tokens"] for one in scored["candidates"]] == [2, 1, 2, 64]  # the template's max_response_tokens
    assert {**scored, "candidates": line["candidates"]} == line


def test_estimating_candidates_scores_none(
    here: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("few.jsonl").write_text('{"context": ["hi"], "candidates": ["a", "b"]}\n')
    assert main(["score", *SCORING, "--candidates=few.jsonl", "--output=new/few-out.jsonl", "--estimate=true"]) == 0
    assert "hours on one device" in capsys.readouterr().out
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("line", "output", "named"),
    [
        ('{"context": ["hi"], "candidates": ["half \\ud800"]}', "odd-out.jsonl", "odd.jsonl:1: half of a character"),
        ('{"context": ["\\udfff"], "candidates": ["hi"]}', "odd-out.jsonl", "odd.jsonl:1: half of a character"),
        ('{"context": ["a"], "candidates": ["hi"], "x": [[NaN]]}', "odd-out.jsonl", "odd.jsonl:1: NaN or infinity"),
        ('{"context": ["a"], "candidates": ["hi"], "x": 1e999}', "odd-out.jsonl", "odd.jsonl:1: NaN or infinity"),
        ('{"context": ["hi"], "candidates": ["a"]}', "./odd.jsonl", "the scores would replace the candidates"),
    ],
)
def test_candidates_that_cannot_be_scored(
    here: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str], line: str, output: str, named: str
) -> None:
    Path("odd.jsonl").write_text(line + "\n")
    assert main(["score", *SCORING, "--candidates=odd.jsonl", f"--output={output}"]) == 2
    assert named in capsys.readouterr().err
    assert Path("odd.jsonl").read_text() == line + "\n"
    assert not list(Path().glob(".odd*"))


def test_a_decoding_beyond_the_models_positions_is_refused_before_anything_is_written(
    here: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--decodings=null", "--sampling.max_tokens=66"]  # 192 tokens of context: 257 of 256 positions
    assert run("generate", "far", *flags) == 2
    assert "reads at most 256 tokens, a reply may need 257" in capsys.readouterr().err
    assert not Path("far").exists()


def test_a_flag_that_reaches_nothing_is_refused(
    here: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", "whole", "--sampling.top_p=0.5") == 2
    assert "--sampling.top_p=0.5 reaches nothing" in capsys.readouterr().err
    assert run("generate", "whole", "--decodings=[]") == 2
    assert "decodings is an empty list" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "named"),
    [("--trainer.strategy=nope", "the trainer refuses its settings"), ("--store=", "no store is named")],
)
def test_settings_of_nothing_are_refused(here: Path, capsys: pytest.CaptureFixture[str], flag: str, named: str) -> None:
    before = sorted(here.iterdir())
    assert run("generate", "never", flag) == 2
    assert named in capsys.readouterr().err
    assert sorted(here.iterdir()) == before


def test_an_export_names_its_scores_and_stays_out_of_the_store(
    here: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", "whole", "--output=out.jsonl", "--scoring.name=nope") == 2
    assert "no scores named scoring.name=nope, but " in capsys.readouterr().err
    assert run("export", "whole", "--output=whole/candidates/manifest.json") == 2
    assert "lies in the store that is exported" in capsys.readouterr().err
    assert content(here / "whole") == whole


def test_settings_that_failed_at_once_may_be_corrected(
    here: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    server = ["--teacher=EndpointTeacher", "--teacher.base_url=http://127.0.0.1:9/v1", "--teacher.max_retries=0"]
    assert run("generate", "typo", *server, "--teacher.model=x", "--decodings=[{num_replies: 1}]") == 2
    assert "given up" in capsys.readouterr().err
    assert run("generate", "typo") == 0
    assert content(here / "typo")["candidates/manifest.json"] == whole["candidates/manifest.json"]
    floor = "--filters=[{class_path: g2r_lightning.filters.LikelihoodFloor}]"
    assert run("generate", "floor", *server, "--teacher.model=x", "--decodings=[{num_replies: 1}]", floor) == 2
    assert "LikelihoodFloor needs the likelihood" in capsys.readouterr().err
    assert not Path("floor").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no locks on folders")
def test_a_folder_is_written_by_one_run_at_a_time(
    here: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with alone_in(here / "busy/candidates"):
        assert run("generate", "busy") == 2
        assert "another process is writing into it" in capsys.readouterr().err
    assert run("generate", "busy") == 0
    assert run("generate", "busy") == 0


def test_notes_that_the_teacher_is_shown_are_part_of_the_template(
    here: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    reader = "{class_path: g2r_lightning.dialogue.readers.JsonlReader, init_args: {path: persona.jsonl}}"
    flags = [f"--data.train=[{reader}]", "--teacher.template=CausalTemplate", "--teacher.template.persona=own"]
    flags += ["--teacher.template.max_context_tokens=99", "--decodings=[{num_replies: 1, max_tokens: 4}]"]
    dialogue = {"turns": ["hi", "hello"], "personas": [[], ["i like jazz"]]}
    Path("persona.jsonl").write_text(json.dumps(dialogue) + "\n")
    assert run("generate", "persona", *flags) == 0
    assert run("generate", "persona", *flags) == 0
    Path("persona.jsonl").write_text(json.dumps({**dialogue, "personas": [["not shown"], ["i like jazz"]]}) + "\n")
    assert run("generate", "persona", *flags) == 0
    assert run("score", "persona", *flags, "--scoring.prior=empty") == 0
    Path("persona.jsonl").write_text(json.dumps({**dialogue, "personas": [[], ["i like rock"]]}) + "\n")
    assert run("generate", "persona", *flags) == 2
    assert "template.notes_hash" in capsys.readouterr().err
    assert run("score", "persona", *flags, "--scoring.prior=empty") == 2
    assert "template.notes_hash" in capsys.readouterr().err


def test_candidates_that_came_with_the_data_are_part_of_what_was_asked(
    here: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    reader = "{class_path: g2r_lightning.dialogue.readers.G2RReleaseReader, init_args: {path: release.jsonl}}"
    flags = [f"--data.train=[{reader}]", "--decodings=[{num_replies: 1, max_tokens: 4}]"]
    original = {"context": ["hi"], "response": "hello", "source": "original", "score_infos": {"ll": -1.0}}
    for text, status in (("hey", 0), ("hey", 0), ("yo", 2)):
        lines = [original, {**original, "response": text, "source": "generated"}]
        Path("release.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        assert run("generate", "release", *flags) == status
    assert "sampling.imported_candidates_hash" in capsys.readouterr().err
