"""The load test measures what it says: run small, against a server in this process and a Responder beside it."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

import uvicorn

from g2r_lightning.inference.server.answering import Answerer
from g2r_lightning.inference.server.app import create_app
from g2r_lightning.inference.server.process import bound_socket
from g2r_lightning.inference.server.settings import ServeSettings
from tiny_server import tiny_responder

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import load_client
import serve_load


@contextmanager
def served(bot: Any, **settings: Any) -> Iterator[tuple[str, int]]:
    """Give the address of a server in a thread of this process."""
    app = create_app(Answerer(bot, name="tiny"), ServeSettings(rate=0.0, log_requests=False, **settings))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", ws="none", log_config=None))
    with bound_socket("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listening.getsockname()[:2]
        finally:
            server.should_exit = True
            thread.join()


class Beside:
    """A Responder that answers at once in this process, and says so."""

    def __init__(self, bot: Any, contexts: list[list[str]]) -> None:
        self.bot, self.contexts, self.asked = bot, contexts, []

    def one(self, which: int) -> float:
        begun = time.perf_counter()
        self.bot.respond(self.contexts[which], 2)
        return time.perf_counter() - begun

    def batches(self, size: int, seconds: float) -> dict[str, float]:
        self.asked.append((size, seconds))
        time.sleep(seconds)
        return {"contexts": 50.0, "seconds": 0.5, "cpu_seconds": 0.25}


CONTEXTS = [["hi"], ["do you like pizza ?", "yes"], ["a cat ?"], ["😀"], ["what a movie !"]]


@pytest.mark.parametrize("route", ["respond", "chat"])
def test_the_figures_of_a_small_load(route, tiny_encoder_folder, tmp_path, monkeypatch):
    bot = tiny_responder(tiny_encoder_folder)
    first = [bot.respond(context)[0].text for context in CONTEXTS]
    load = serve_load.Load(
        CONTEXTS, first, k=2, route=route, clients=4, seconds=0.3, rounds=1, batch=8, singles=12, requests=60
    )
    beside = Beside(bot, CONTEXTS)
    with served(bot) as address:
        found = serve_load.measure(address, os.getpid(), beside, load)
    many, memory = found["many clients"], found["memory"]
    assert many["requests"] >= load.clients
    assert (many["lost"], many["errors"], many["unlike_the_responder"]) == (0, 0, 0)
    assert many["responder_per_second"] == 100.0
    assert many["share"] == pytest.approx(many["requests_per_second"] / 100)
    assert many["responder_cpu_ms_a_context"] == 5.0
    assert many["cpu_ms_a_request"] > 0
    assert beside.asked == [(8, 0.3)]
    assert 60 <= memory["sent"] == memory["answered"] < 60 + load.clients
    assert memory["errors"] == {}
    assert memory["rss_mib"][-1] > 10
    single = found["one client"]
    assert single["server_p50_ms"] > 0
    assert single["added_p50_ms"] == pytest.approx(single["server_p50_ms"] - single["responder_p50_ms"])
    monkeypatch.chdir(tmp_path)
    page = serve_load.write_report("serve_load", "Load", "x", "About.", serve_load.rows_of(found), found)
    assert "| errors, lost | 0, 0 | 0, 0 |" in page
    kept = json.loads(page.split("```json\n")[1].split("\n```")[0])
    assert kept["results"]["many clients"]["requests"] == many["requests"]


def test_what_goes_wrong_is_counted(tiny_encoder_folder):
    """A refusal, and an answer that is not the Responder's, are no good answers."""
    bot = tiny_responder(tiny_encoder_folder)
    wrong = serve_load.Load(CONTEXTS, ["never said"] * 5, clients=2, requests=20)
    with served(bot) as address:
        with serve_load.clients(address, wrong, count=20) as asking:
            assert asking()["unlike"] >= 20
        too_many = serve_load.Load(CONTEXTS, [""] * 5, k=101, clients=2)
        with serve_load.clients(address, too_many, count=20) as asking:
            found = asking()
    assert found["errors"] == {"400": found["answered"]}


def test_a_stand_in_answers_at_the_pace_that_is_asked_for():
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    load = serve_load.Load([["hi"]], ["x"], clients=4)
    with serve_load.stand_in(answer) as address:
        wire = load_client.Wire(address)
        assert [wire.ask(load.encoded()[0])[0] for _ in range(3)] == [answer] * 3
        wire.close()
        with serve_load.clients(address, load, count=40, rate=200.0) as asking:
            found = asking()
    assert found["errors"] == {}
    assert found["seconds"] >= 0.17  # the last of 40 is due after 39 / 200 s, less a turn of each client


def test_contexts_of_the_sample_are_short_dialogues():
    contexts = serve_load.sample_contexts(50)
    assert len(contexts) == 50
    assert {len(context) for context in contexts} <= {1, 2, 3}
    assert all(turn.strip() for context in contexts for turn in context)
