"""``chat`` as a script uses it: lines piped in, replies, tables and reasons printed."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import yaml

from g2r_lightning.cli import main
from g2r_lightning.inference import Responder
from test_readme import commands, ours
from tiny import WORDS, write_encoder_decoder


@pytest.fixture(scope="module")
def place(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fitted run as ``runs/quickstart``, whose configuration says that it lies there."""
    folder = tmp_path_factory.mktemp("chat")
    run = folder / "runs" / "quickstart"
    shutil.copytree(fitted.parent / "runs" / "first", run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["run"] |= {"name": "quickstart", "root": "runs"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    write_encoder_decoder(folder / "teacher", WORDS)
    return folder


@pytest.fixture
def talk(place, monkeypatch, capsys):
    """Run ``chat`` over lines that are piped in, and return status and output."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")

    def call(said: str | bytes, *flags: str) -> tuple[int, str]:
        raw = said.encode() if isinstance(said, str) else said
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        capsys.readouterr()
        status = main(["chat", *flags])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return call


def test_lines_from_a_pipe_are_answered_as_the_responder_answers(talk, place):
    status, out = talk(
        "hi\nhow are you ?\n/k 2\n/undo\nwhy ?\n/quit\nnever read\n", "--chat.index=runs/quickstart/index"
    )
    assert status == 0
    bot = Responder.load(place / "runs/quickstart/index")
    first = bot.respond(["hi"], k=3)
    second = bot.respond(["hi", first[0].text, "how are you ?"], k=3)
    third = bot.respond(["hi", first[0].text, "why ?"], k=2)
    assert [line[5:] for line in out.splitlines() if line.startswith("bot> ")] == [
        best.text for best in (first[0], second[0], third[0])
    ]
    for reply in (*first, *second, *third):
        assert any(
            reply.text in line and f"{reply.score:.2f}" in line and reply.source in line for line in out.splitlines()
        )
    assert "took back 'how are you ?' and its reply" in out
    assert "never read" not in out


def test_at_a_terminal_the_end_of_the_input_ends_the_chat(place, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.stdin", Terminal("hi\n/history\n"))
    assert main(["chat", "--chat.index=runs/quickstart/index", "--chat.k=1"]) == 0
    out = capsys.readouterr().out
    assert out.count("you> ") == 4  # three prompts, and once in the history
    assert out.count("bot> ") == 2
    assert " score " not in out  # one reply needs no table


def test_why_builds_its_contexts_once_and_keeps_them_in_the_run(talk, place):
    kept = place / "runs/quickstart/why"
    status, out = talk("hi\n/why\n/why 9\n", "-c", "runs/quickstart/config.yaml", "--chat.contexts=20")
    assert status == 0
    assert "encoding training contexts for /why, once" in out
    assert "written for" in out
    assert "nearest of 20 training contexts (48 are known)" in out
    assert "teacher none (no score of this reply in this context" in out
    assert "name a reply by its number, 1 to 3" in out
    manifest = json.loads((kept / "manifest.json").read_text())
    assert (manifest["contexts"], manifest["encoded"]) == (48, 20)
    written = (kept / "manifest.json").stat().st_mtime_ns
    _, again = talk("hi\n/why\n", "--chat.index=runs/quickstart/index", "--chat.contexts=20")  # the run's configuration
    assert "encoding training contexts" not in again
    assert (kept / "manifest.json").stat().st_mtime_ns == written
    teacher = ("--teacher=g2r_lightning.teacher.EncoderDecoderTeacher", "--teacher.name_or_path=teacher")
    _, judged = talk("hi\n/why\n", "-c", "runs/quickstart/config.yaml", "--chat.teacher=true", *teacher)
    assert "(log-likelihood a token, by teacher now)" in judged


def test_what_is_missing_is_told_and_the_chat_goes_on(talk, place, tmp_path):
    shutil.copytree(place / "runs/quickstart/index", tmp_path / "index", dirs_exist_ok=True)
    status, out = talk("hi\n/why\nok\n", f"--chat.index={tmp_path}/index")
    assert status == 0
    assert "/why needs the training data" in out
    assert "start with -c runs/NAME/config.yaml" in out
    assert out.count("bot> ") == 2
    status, out = talk("hi\n/why\nok\n", "-c", "runs/quickstart/config.yaml", "--chat.teacher=true")
    assert "the experiment has no section 'teacher'" in out
    assert out.count("bot> ") == 2


def test_what_cannot_be_answered_from_is_refused(talk):
    status, out = talk("hi\n")
    assert (status, "`chat` needs an index: --chat.index=runs/NAME/index" in out) == (2, True)
    status, out = talk("hi\n", "--chat.index=nowhere")
    assert (status, "no response index here" in out) == (2, True)
    status, out = talk(b"hi\n\xff\xfe\n", "--chat.index=runs/quickstart/index")
    assert (status, "standard input: no UTF-8 text" in out) == (2, True)
    status, out = talk("hi\n", "--chat.index=runs/quickstart/index", "--encoder=onnx")
    assert (status, "no exported encoder here" in out) == (2, True)


def test_control_characters_do_not_reach_the_terminal(talk):
    _, out = talk("hi \x1b[31m\n/history\n", "--chat.index=runs/quickstart/index")
    assert "\x1b" not in out


def test_nor_do_those_of_a_source(talk, place, tmp_path):
    shutil.copytree(place / "runs/quickstart", tmp_path / "run")
    (tmp_path / "new.jsonl").write_text(json.dumps({"text": "good dog", "source": "\x1b]0;title\x07us"}))
    assert main(["index", "add", f"--folder={tmp_path}/run/index", f"--input={tmp_path}/new.jsonl"]) == 0
    flags = (f"--chat.index={tmp_path}/run/index", "--rules.where=text = 'good dog'", "--chat.k=2")
    status, out = talk("hi\n/why\n", *flags)
    assert (status, "\x1b" in out, "\x07" in out) == (0, False, False)
    assert "\ufffd]0;title\ufffdus" in out


def test_an_input_that_is_closed_ends_the_chat(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.stdin", None)
    assert main(["chat", "--chat.index=runs/quickstart/index"]) == 0
    assert "bot> " not in capsys.readouterr().out


def test_the_commands_of_the_document_run(talk):
    for words in commands("docs/chat.md"):
        piped = words.index("|") if "|" in words else None
        said = " ".join(words[1:piped]).replace("\\n", "\n") if piped else "hi\n"
        arguments = ours(words[piped + 1 :] if piped else words)
        if arguments is not None and "--chat.teacher=true" not in arguments and "--encoder=openvino" not in arguments:
            assert arguments[0] == "chat"
            status, out = talk(said, *arguments[1:])
            assert (status, "bot> " in out) == (0, True), words
