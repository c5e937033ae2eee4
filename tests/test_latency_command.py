"""``latency`` over a fitted run: the student beside tiny teachers, figures that agree with each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from g2r_lightning.cli import main
from g2r_lightning.commands.latency import students
from g2r_lightning.errors import ConfigError, DataError
from g2r_lightning.inference import Responder
from g2r_lightning.studies.latency_record import CallRecord
from test_readme import commands, ours
from tiny import WORDS, write_encoder_decoder

SHORT = ("--latency.max_tokens=22", "--latency.turn=2")


@pytest.fixture(scope="module")
def place(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fitted run as ``runs/quickstart``, a teacher, and contexts."""
    folder = tmp_path_factory.mktemp("latency")
    run = folder / "runs" / "quickstart"
    shutil.copytree(fitted.parent / "runs" / "first", run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["run"] |= {"name": "quickstart", "root": "runs"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    write_encoder_decoder(folder / "teacher", WORDS)
    lines = [json.dumps(["hi !", f"i have {WORDS[number]} ."]) for number in range(12)]
    (folder / "contexts.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "220")


def latency(*flags: str) -> int:
    return main(["latency", "-c", "runs/quickstart/config.yaml", "--latency.contexts=contexts.jsonl", *SHORT, *flags])


def test_student_and_teachers_are_timed_on_the_same_contexts_and_again_only_where_asked(place, capsys):
    flags = ("--latency.teachers=[teacher]", "--latency.limit=2")
    assert latency(*flags) == 0
    run = place / "runs" / "quickstart"
    found = json.loads((run / "results" / "latency.json").read_text())
    lines = (run / "examples" / "latency.jsonl").read_text().splitlines()
    calls = [json.loads(line) for line in lines[1:]]
    systems = ["student pytorch", "teacher greedy", "teacher sampling", "teacher beam"]
    assert {(call["system"], call["context"]) for call in calls} == {(name, i) for name in systems for i in range(2)}
    for name in systems:
        own = [1000 * call["seconds"] for call in calls if call["system"] == name]
        assert found[f"{name}/mean_ms"] == pytest.approx(np.mean(own))
        assert found[f"{name}/p99_ms"] == pytest.approx(np.percentile(own, 99))
        assert found[f"{name}/replies_per_second"] == pytest.approx(1000 / np.mean(own))
    student = [call for call in calls if call["system"] == "student pytorch"]
    for call in student:
        assert list(call["stages"]) == ["tokenise", "encode", "search"]
        assert sum(call["stages"].values()) <= call["seconds"]
    bot = Responder.load(run / "index")
    assert [call["reply"] for call in student] == [
        bot.respond(["hi !", f"i have {WORDS[i]} ."])[0].text for i in range(2)
    ]
    assert found["teacher beam/times_first"] > 1
    assert found["threads"] == torch.get_num_threads()
    out = capsys.readouterr().out
    assert all(name in out for name in (*systems, "replies/s", "tokenise"))
    page = (run / "results" / "latency.md").read_text()
    assert "| student pytorch |" in page
    assert "- contexts: 2 of contexts.jsonl" in page

    before = (run / "examples" / "latency.jsonl").read_bytes()
    assert latency(*flags) == 0  # nothing is missing, so nothing is measured
    assert (run / "examples" / "latency.jsonl").read_bytes() == before

    assert latency("--latency.teachers=[teacher]", "--latency.limit=2", "--latency.decodings=[greedy]") == 2
    assert "teacher beam" in capsys.readouterr().err
    assert latency("--latency.teachers=[]", "--latency.limit=12", "--latency.on_existing=overwrite") == 0
    again = json.loads((run / "results" / "latency.json").read_text())
    assert again["student pytorch/calls"] == 12
    assert not any(key.startswith("teacher") for key in again)


def test_every_export_in_the_index_that_can_run_is_a_system(place, monkeypatch, caplog):
    def loaded(index: Path, form: str):
        if form == "openvino":
            raise ConfigError("openvino is not installed")
        bot = Responder.load(index)
        return bot.encoder, bot.text

    index = place / "copied" / "index"
    shutil.copytree(place / "runs/quickstart/index", index)
    for form in ("openvino", "onnx"):
        (index / "deployed" / form).mkdir(parents=True)
        (index / "deployed" / form / "manifest.json").write_text("{}")
    monkeypatch.setattr("g2r_lightning.commands.latency.load_for_index", loaded)
    monkeypatch.setattr("g2r_lightning.commands.latency.read_export", lambda folder: {"precision": "bf16"})
    names = [system.name for system in students(index)]
    assert names == ["student pytorch", "student onnx bf16"]
    assert "openvino is left out: openvino is not installed" in caplog.text


def test_what_cannot_be_measured_is_refused(place, capsys):
    def refused(*flags: str) -> str:
        assert main(["latency", *flags]) == 2
        return capsys.readouterr().err

    config = ("-c", "runs/quickstart/config.yaml", "--latency.on_existing=overwrite")
    assert "name the contexts to answer" in refused(*config)
    assert "`latency` needs an index: --latency.index=runs/NAME/index" in refused("--latency.contexts=contexts.jsonl")
    named = (*config, "--latency.contexts=contexts.jsonl")
    assert "latency.teachers=./no-such: no such folder" in refused(*named, "--latency.teachers=[./no-such]")
    few = refused(*named, "--latency.teachers=[teacher]", "--latency.max_tokens=9")
    assert "--latency.max_tokens=9: the decoding 'beam' writes at least 20 tokens" in few
    assert "no response index here" in refused(*named, "--latency.index=nowhere")
    assert "--latency.device=nothing: not to be had here" in refused(
        *named, "--latency.teachers=[teacher]", "--latency.device=nothing"
    )
    shutil.copytree("teacher", "damaged")
    Path("damaged/model.safetensors").write_text("nothing")
    assert "damaged: this folder holds no model" in refused(*named, "--latency.teachers=[damaged]")
    shutil.rmtree("damaged")
    shutil.copytree("teacher", "bare")
    Path("bare/tokenizer_config.json").unlink()  # its padding is a new token then
    assert "bare: its tokenizer marks texts with" in refused(*named, "--latency.teachers=[bare]")
    shutil.rmtree("bare")


@pytest.mark.parametrize("line", ['{"system": "ghost", "context": 0}', '{"system": "student", "context": "a"}'])
def test_a_line_that_is_no_timed_call_is_named(tmp_path, line):
    record, call = CallRecord(tmp_path / "calls", {"student": {}}), {"seconds": 1.0, "stages": {}, "reply": "hi"}
    with record.path.open("a") as file:
        file.write(json.dumps({**json.loads(line), **call}) + "\n")
    with pytest.raises(DataError, match=r"calls:2: damaged \(no timed call of a system"):
        CallRecord(tmp_path / "calls", {"student": {}})


def test_the_commands_of_the_document_run(place):
    ran = 0
    for words in commands("docs/latency.md"):
        arguments = ours(words)
        if arguments is not None and not any("blenderbot" in word for word in arguments):
            short = [
                word.replace("$G2R_DATA/blended_skill_talk/bst_test_dialogues_200.json", "contexts.jsonl")
                for word in arguments
            ]
            assert main([*short, *SHORT, "--latency.limit=1", "--latency.on_existing=overwrite"]) == 0, words
            ran += 1
    assert ran
