"""The end of a server: who comes late is told so, by an answer and not by a cut connection."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from g2r_lightning.inference import Responder
from g2r_lightning.inference.server import process
from g2r_lightning.inference.server.answering import Answerer
from g2r_lightning.inference.server.app import create_app
from g2r_lightning.inference.server.process import Server, bound_socket
from g2r_lightning.inference.server.settings import ServeSettings
from tiny_server import tiny_responder


class Slow:
    """A student that answers ``slow`` when the gate is opened, and all else at once."""

    def __init__(self, bot: Responder) -> None:
        self.gate, self.begun = threading.Event(), threading.Event()
        self.bot = Responder(bot.index, bot.encoder, bot.text)
        sound = self.bot.respond_all

        def respond_all(contexts: Any, k: int, personas: Any) -> Any:
            if contexts[0][0] == "slow":
                self.begun.set()
                assert self.gate.wait(60)
            return sound(contexts, k, personas=personas)

        self.bot.respond_all = respond_all


@contextmanager
def served(bot: Responder, stop_timeout: int) -> Iterator[tuple[Server, tuple[str, int], threading.Thread]]:
    """Give a server in a thread of this process, its address, and the thread."""
    settings, stopping = ServeSettings(rate=0.0, stop_timeout=stop_timeout), threading.Event()
    server = Server(create_app(Answerer(bot, name="tiny"), settings, stopping=stopping), settings, stopping)
    with bound_socket("127.0.0.1", 0) as listening:
        address = listening.getsockname()[:2]
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield server, address, thread
        finally:
            server.should_exit = True
            thread.join()


def ask(address: tuple[str, int], text: str, over: http.client.HTTPConnection | None = None) -> tuple[int, Any, Any]:
    """Return status, body and Connection header of an answer."""
    connection = over or http.client.HTTPConnection(*address, timeout=60)
    body = json.dumps({"context": [text]})
    connection.request("POST", "/respond", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read()), answer.headers["connection"]
    if over is None:
        connection.close()
    return found


def test_running_requests_are_finished_and_new_ones_are_told_that_the_server_stops(tiny_encoder_folder, monkeypatch):
    monkeypatch.setattr(process, "FAREWELL_S", 2.0)
    student = Slow(tiny_responder(tiny_encoder_folder))
    with served(student.bot, stop_timeout=30) as (server, address, thread), ThreadPoolExecutor(1) as threads:
        open_one = http.client.HTTPConnection(*address, timeout=60)
        assert ask(address, "hi", open_one)[0] == 200
        running = threads.submit(ask, address, "slow")
        assert student.begun.wait(30)
        server.should_exit = True
        deadline = time.monotonic() + 30
        status, body, header = 200, {}, None
        while status == 200 and time.monotonic() < deadline:
            connection = http.client.HTTPConnection(*address, timeout=60)
            connection.request("GET", "/health")
            status = connection.getresponse().status
            connection.close()
        status, body, header = ask(address, "hi", open_one)
        assert (status, body["error"]["code"], header) == (503, "stopping", "close")
        student.gate.set()
        assert running.result(60)[0] == 200
        thread.join(30)
        assert not thread.is_alive()


def test_what_does_not_end_in_time_is_answered_too(tiny_encoder_folder, monkeypatch):
    monkeypatch.setattr(process, "FAREWELL_S", 0.05)
    student = Slow(tiny_responder(tiny_encoder_folder))
    with served(student.bot, stop_timeout=1) as (server, address, thread), ThreadPoolExecutor(2) as threads:
        running = threads.submit(ask, address, "slow")
        assert student.begun.wait(30)
        waiting = threads.submit(ask, address, "hi")  # behind it, in the queue
        time.sleep(0.1)
        server.should_exit = True
        for late in (running, waiting):
            status, body, header = late.result(60)
            assert (status, body["error"]["code"], header) == (503, "stopping", "close")
        thread.join(30)
        assert not thread.is_alive()
        student.gate.set()
