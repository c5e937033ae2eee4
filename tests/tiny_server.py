"""A student that answers from six texts, its server in this process or in one of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from starlette.testclient import TestClient

from g2r_lightning.index import ResponseIndex, encode_rows, save_index
from g2r_lightning.inference import Responder
from g2r_lightning.inference.server.answering import Answerer
from g2r_lightning.inference.server.app import create_app
from g2r_lightning.inference.server.settings import ServeSettings
from g2r_lightning.student import BiEncoder, StudentEncoder, StudentText

TEXTS = ["yes .", "no , never .", "i love pizza", "hello , how are you ?", "what a sad movie !", "😀"]
SOURCES = ["original", "generated", *["approved"] * 4]


def tiny_responder(encoder_folder: Path, persona: Any = "none", kind: type[StudentEncoder] = BiEncoder) -> Responder:
    """Return a student with random weights and its index."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = kind(str(encoder_folder)).eval()
    text = StudentText(max_context_tokens=24, persona=persona).bind(str(encoder_folder))
    rows = [torch.tensor(ids).numpy() for ids in text.encode_responses(TEXTS)]
    vectors = encode_rows(encoder.encode_responses, rows, text.pad_id, torch.device("cpu"))
    return Responder(ResponseIndex(TEXTS, SOURCES, vectors.numpy()), encoder, text)


def write_index(folder: Path, bot: Responder, run: str = "tiny") -> Path:
    """Write the index as ``fit`` does."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_index(folder, bot.index, bot.encoder, bot.text, {"run": run, "checkpoint_sha256": "0123456789abcdef"})
    return folder


@contextmanager
def client(bot: Responder | Answerer, token: str | None = None, **settings: Any) -> Iterator[TestClient]:
    """Give a client of a server in this process; by default without a limit on the rate."""
    chosen = ServeSettings(**{"rate": 0.0, **settings})
    answerer = bot if isinstance(bot, Answerer) else Answerer(bot, name="tiny", log_text=chosen.log_text)
    with TestClient(create_app(answerer, chosen, token), base_url="http://127.0.0.1") as made:
        yield made


@dataclass
class Running:
    """A server in a process of its own."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def running(index: Path, log: Path, *flags: str, **environment: str) -> Iterator[Running]:
    """Give a server that answers from an index, on a free port of the loopback; it is killed at the end."""
    command = [sys.executable, "-m", "g2r_lightning", "serve", f"--serve.index={index}", "--serve.port=0", *flags]
    with log.open("w") as written:
        process = subprocess.Popen(
            command, stdout=written, stderr=written, text=True, env={**os.environ, **environment}
        )
    try:
        yield Running(_ready(process, log), process, log)
    finally:
        process.kill()
        process.wait()


def _ready(process: subprocess.Popen[str], log: Path) -> str:
    """Wait for the server and return its URL."""
    import time

    for _ in range(6000):
        found = re.search(r"ready: chat at (\S+)/ ", log.read_text())
        if found:
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"no server: {log.read_text()}")
