"""``generate`` from a model behind a server: stopped while requests are under way, refused at once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from g2r_lightning.cli import main
from teacher.chat_server import Answer, Body, completion, serving
from tiny import write_dialogues

SHARD = 8  # contexts, half of them
EXPERIMENT = """
seed_everything: 3
data:
  class_path: g2r_lightning.data.DialogueDataModule
  init_args:
    train: [{class_path: g2r_lightning.dialogue.readers.JsonlReader, init_args: {path: train.jsonl}}]
teacher:
  class_path: g2r_lightning.teacher.EndpointTeacher
  init_args: {base_url: "http://127.0.0.1:9/v1", model: m, timeout_s: 60, max_retries: 0}
sampling: {num_replies: 2}
trainer: {accelerator: cpu}
"""
PIPES: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment whose server is named by a flag, in the working folder."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    write_dialogues(tmp_path / "train.jsonl", count=4, turns=5)
    (tmp_path / "x.yaml").write_text(f"{EXPERIMENT}shard_size: {SHARD}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_signal_does_not_wait_for_the_answers_under_way(here: Path) -> None:
    """Each request of the second shard takes 30 seconds, and may take 60."""
    slow = True

    def behave(number: int, body: Body) -> Answer:
        asked = sum(one["model"] == body["model"] for one in list(chat.requests))
        return Answer(completion("one", "two"), delay_s=30.0 if slow and asked > SHARD else 0.0)

    stops = {"term": signal.SIGTERM, "int": signal.SIGINT}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with serving(behave) as (url, chat):
        words = {
            name: [
                "generate",
                "-c",
                "x.yaml",
                f"--teacher.base_url={url}",
                f"--teacher.model={name}",
                f"--store={name}",
            ]
            for name in stops
        }
        commands = {
            name: subprocess.Popen([sys.executable, "-m", "g2r_lightning", *own], env=environment, **PIPES)
            for name, own in words.items()
        }
        for name, command in commands.items():
            while sum(one["model"] == name for one in list(chat.requests)) < 2 * SHARD and command.poll() is None:
                time.sleep(0.005)
            begun = time.monotonic()
            command.send_signal(stops[name])
            try:
                _, told = command.communicate(timeout=25)
            finally:
                command.kill()
            assert time.monotonic() - begun < 20  # a second, most of it Python's own end; busy machines take longer
            assert command.returncode == 128 + stops[name], told
            assert told.rstrip().endswith("error: stopped; run the same command again to go on")
            assert "Traceback" not in told
            assert [path.name for path in (here / name).rglob("part-*")] == ["part-00000.parquet"]
        slow, asked = False, len(chat.requests)
        assert main(words["term"]) == 0
        assert len(chat.requests) - asked == SHARD  # the first shard is kept
    assert (here / "term/candidates/manifest.json").is_file()


@pytest.mark.parametrize("status", [None, 401, 404])
def test_a_server_that_refuses_leaves_no_empty_folder(
    here: Path, capsys: pytest.CaptureFixture[str], status: int | None
) -> None:
    named = {None: "Connection error", 401: "the server wants a key", 404: "check teacher.init_args.model=m"}[status]
    before = sorted(here.iterdir())
    with serving(lambda number, body: Answer(status=status or 200)) as (url, _), socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens there
        place = url if status else f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        assert main(["generate", "-c", "x.yaml", f"--teacher.base_url={place}", "--store=stores/new"]) == 2
    assert named in capsys.readouterr().err
    assert sorted(here.iterdir()) == before
