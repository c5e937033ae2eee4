"""Whatever the server's own description allows, and forbids, is sent to it: its answers are those that it describes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("schemathesis", reason="needs the extra `dev`")

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from g2r_lightning.inference.server.answering import Answerer
from g2r_lightning.inference.server.app import create_app
from g2r_lightning.inference.server.process import Server, address_of, bound_socket
from g2r_lightning.inference.server.settings import ServeSettings
from tiny_server import tiny_responder

CHECKS = [
    not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
    checks.response_headers_conformance, checks.response_schema_conformance,
]  # fmt: skip
CASES = [(mode, "POST", path) for path in ("/respond", "/v1/chat/completions") for mode in ("positive", "negative")] + [
    ("positive", "GET", "/v1/models/{name}")
]  # any text may be a name


@pytest.fixture(scope="module")
def schema(tiny_encoder_folder: Path) -> Iterator[Any]:
    """The description of a server that runs in a thread of this process."""
    limits, stopping = ServeSettings(rate=0.0, log_requests=False), threading.Event()
    answerer = Answerer(tiny_responder(tiny_encoder_folder), name="tiny")
    server = Server(create_app(answerer, limits, stopping=stopping), limits, stopping)
    with bound_socket("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield schemathesis.openapi.from_url(f"{address_of(listening)}/openapi.json")
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize(("mode", "method", "path"), CASES)
def test_every_answer_is_one_that_is_described(schema, mode, method, path):
    """What the description forbids is refused; what it allows may be, by a limit that no schema tells."""
    kind = schemathesis.GenerationMode(mode)
    own = [*CHECKS, checks.negative_data_rejection] if mode == "negative" else CHECKS
    statuses = set()

    @settings(
        max_examples=25, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None,
        derandomize=True,
    )  # fmt: skip
    @given(schema[path][method].as_strategy(generation_mode=kind))
    def ask(case: Any) -> None:
        statuses.add(case.call_and_validate(checks=own).status_code)

    ask()
    assert statuses
