"""A server whose index is changed under it: what was changed answers, and no request is lost meanwhile."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from g2r_lightning.index.compaction import compact
from g2r_lightning.index.edit import add_responses, remove_responses
from g2r_lightning.index.folder import MANIFEST
from g2r_lightning.inference import ReplyRules, Responder
from g2r_lightning.inference.server.answering import Answerer
from tiny_server import TEXTS, client, tiny_responder, write_index


@pytest.fixture
def folder(tiny_encoder_folder, tmp_path) -> Path:
    return write_index(tmp_path / "runs" / "seen" / "index", tiny_responder(tiny_encoder_folder), "seen")


def until(happened: Callable[[], bool]) -> None:
    """Wait for something."""
    for _ in range(1500):
        if happened():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen within 30 s")


def replies(api: Any, **more: Any) -> list[str]:
    """Return what is said, the best first."""
    response = api.post("/respond", json={"context": ["hi"], "k": 50, **more})
    assert response.status_code == 200, response.text
    return [reply["text"] for reply in response.json()["replies"]]


def test_what_is_added_removed_and_folded_in_answers_and_no_request_is_lost(folder):
    answerer = Answerer(Responder.load(folder), folder)
    with client(answerer, reload=0.02) as api:
        statuses: list[int] = []
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                statuses.append(api.post("/respond", json={"context": ["a dog ?"]}).status_code)

        asking = [threading.Thread(target=ask) for _ in range(2)]
        for thread in asking:
            thread.start()
        try:
            add_responses(folder, pa.table({"text": ["good dog", "bad dog"]}), "us")
            until(lambda: len(replies(api)) == 8)
            assert set(replies(api, rules={"where": "source = us"})) == {"good dog", "bad dog"}
            remove_responses(folder, lambda live: np.array([0, 7]))
            until(lambda: len(replies(api)) == 6)
            compact(folder)
            until(lambda: answerer.responder.index.version.changes == 0)
            add_responses(folder, pa.table({"text": ["what a dog"]}))
            until(lambda: "what a dog" in replies(api))
        finally:
            over.set()
            for thread in asking:
                thread.join()
        assert set(replies(api)) == {*TEXTS[1:], "good dog", "what a dog"}
        assert set(statuses) == {200}
        assert len(statuses) > 4
        assert api.get("/v1/models").json()["data"][0]["g2r"]["responses"] == 7
        assert "g2r_index_responses 7.0" in api.get("/metrics").text
        assert api.get("/health").json() == {"status": "ok", "model": "seen", "responses": 7, "reason": None}


def test_an_index_that_is_damaged_or_gone_keeps_answering_and_says_so_once(folder, tmp_path, caplog):
    answerer = Answerer(Responder.load(folder, rules=ReplyRules(block=(TEXTS[0],))), folder)
    with client(answerer, reload=0.02) as api, caplog.at_level(logging.WARNING):
        kept = (folder / MANIFEST).read_text()
        (folder / MANIFEST).write_text("{")
        until(lambda: api.get("/health").json()["reason"] is not None)
        told = api.get("/health")
        assert (told.status_code, told.json()["status"]) == (200, "ok")
        assert "has changed and cannot be read again" in told.json()["reason"]
        assert set(replies(api)) == set(TEXTS[1:])
        time.sleep(0.2)
        assert caplog.text.count("cannot be read again, answers stay") == 1
        assert "damaged" in caplog.text
        (folder / MANIFEST).write_text(kept)
        until(lambda: api.get("/health").json()["reason"] is None)
        folder.rename(tmp_path / "away")
        gone = api.get("/health")
        assert (gone.status_code, gone.json()["status"]) == (503, "unavailable")
        assert "folder of the index is gone" in gone.json()["reason"]
        time.sleep(0.1)
        assert set(replies(api)) == set(TEXTS[1:])
        shutil.copytree(tmp_path / "away", folder)
        until(lambda: api.get("/health").status_code == 200)


def test_a_look_at_what_has_not_changed_reads_nothing(folder, monkeypatch):
    answerer = Answerer(Responder.load(folder), folder)
    assert not answerer.refresh()
    reads: list[int] = []
    original = Responder.reload
    monkeypatch.setattr(Responder, "reload", lambda self: reads.append(1) or original(self))
    for _ in range(3):
        assert not answerer.refresh()
    assert reads == []
    add_responses(folder, pa.table({"text": ["good dog"]}))
    assert answerer.refresh()
    assert (reads, answerer.responses) == ([1], 7)
    assert not Answerer(tiny := answerer.responder, None).refresh()
    assert len(tiny.index) == 7
