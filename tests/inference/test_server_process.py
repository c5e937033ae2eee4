"""A server as its users have it: a process of its own, OpenAI's own client, killed connections, signals."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("openai", reason="needs the extra `endpoint`")

import openai

from g2r_lightning.cli import main
from g2r_lightning.inference import Responder
from tiny_server import Running, running, tiny_responder, write_index

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef"
HI = [{"role": "user", "content": "hi"}]


def test_a_server_from_its_start_to_its_end(tiny_encoder_folder, tmp_path, monkeypatch):
    """One process for all of it: starting one costs seconds."""
    bot = tiny_responder(tiny_encoder_folder)
    index = write_index(tmp_path / "runs" / "tiny" / "index", bot)
    log = tmp_path / "log"
    with running(index, log, "--serve.rate=0", "--serve.stop_timeout=30", G2R_TOKEN=TOKEN) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0)
        answers_openais_client(client, bot)
        streams_to_openais_client(client, bot)
        refuses_as_openais_client_expects(client, server)
        asyncio.run(answers_a_crowd(server, bot))
        survives_connections_that_are_cut(server, client)
        survives_what_is_no_http(server, client)
        the_documents_examples_work(server, monkeypatch)
        shutil.rmtree(index)
        assert json.loads(get(server, "/health"))["status"] == "unavailable"
        answers_openais_client(client, bot)
        client.close()
        finishes_what_runs_and_refuses_what_comes(server)
    said = log.read_text()
    assert "serving 'tiny'" in said
    assert said.rstrip().endswith("stopped")
    assert "Traceback" not in said
    assert "secret" not in said


def get(server: Running, path: str) -> str:
    """Return the body of an answer, by a connection of its own."""
    return talk(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()).partition(
        "\r\n\r\n"
    )[2]


def talk(server: Running, sent: bytes) -> str:
    """Send bytes and return all that comes back."""
    with socket.create_connection(server.address, timeout=60) as connection:
        connection.sendall(sent)
        received = b""
        while block := connection.recv(65_536):
            received += block
    return received.decode()


def post(path: str, body: Any) -> bytes:
    """Return a request as it goes over the wire."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def answers_openais_client(client: Any, bot: Responder) -> None:
    """A plain completion, its extra fields, and the list of models."""
    messages = [*HI, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "a secret cat ?"}]
    completion = client.chat.completions.create(model="tiny", messages=messages, n=2, temperature=0.0, seed=1)
    expected = bot.respond(["hi", "hello", "a secret cat ?"], k=2)
    assert [choice.message.content for choice in completion.choices] == [reply.text for reply in expected]
    assert completion.choices[0].model_extra["g2r"]["source"] == expected[0].source
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens > 0
    assert [model.id for model in client.models.list()] == ["tiny"]


def streams_to_openais_client(client: Any, bot: Responder) -> None:
    """A stream with its usage."""
    stream = client.chat.completions.create(
        model="tiny", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == bot.respond(["hi"])[0].text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices] == [None, None, "stop"]
    assert chunks[-1].usage.total_tokens > 0


def refuses_as_openais_client_expects(client: Any, server: Running) -> None:
    """Each refusal is the client's own exception, with our words."""
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="there is no such model here; there is 'tiny'"):
        create(model="gpt-4o", messages=HI)
    with pytest.raises(openai.BadRequestError, match=r"messages\[0\].content: is empty"):
        create(model="tiny", messages=[{"role": "user", "content": ""}], stream=True)
    with pytest.raises(openai.APIStatusError, match="longer than 262144 bytes") as refused:
        create(model="tiny", messages=[{"role": "user", "content": "x" * 1_000_000}])
    assert refused.value.status_code == 413
    with pytest.raises(openai.AuthenticationError, match="wrong token"):
        client.with_options(api_key="another").models.list()


async def answers_a_crowd(server: Running, bot: Responder) -> None:
    """Sixteen clients at once, each with contexts of its own, each with the answer to its own."""
    words = ["dog", "cat", "pizza", "music", "movie", "book", "game", "work"]
    contexts = [[f"i love {one}", f"why {other} ?"] for one in words for other in words[:4]]
    expected = bot.respond_all(contexts, k=3)
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0) as client:

        async def ask(context: list[str]) -> list[str]:
            said = [{"role": role, "content": text} for role, text in zip(("assistant", "user"), context, strict=True)]
            found = await client.chat.completions.create(model="tiny", messages=said, n=3)
            return [choice.message.content for choice in found.choices]

        found = await asyncio.gather(*map(ask, contexts))
    assert found == [[reply.text for reply in replies] for replies in expected]


def survives_connections_that_are_cut(server: Running, client: Any) -> None:
    """Reset before the answer, in the middle of a stream, in the middle of a body, of a head."""
    whole = post("/v1/chat/completions", {"messages": HI, "n": 6, "stream": True})
    reset = struct.pack("ii", 1, 0)
    for sent, read in [(whole, 0), (whole, 20), (whole, 700), (whole[:-9], 0), (whole[:40], 0), (b"", 0)] * 3:
        with socket.create_connection(server.address, timeout=60) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            connection.sendall(sent)
            with connection.makefile("rb") as answer:
                assert len(answer.read(read)) == read
    assert client.chat.completions.create(model="tiny", messages=HI).choices[0].message.content


def survives_what_is_no_http(server: Running, client: Any) -> None:
    """Noise is refused."""
    for noise in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"HELO there\r\n\r\n"):
        assert talk(server, noise).startswith("HTTP/1.1 400")
    assert client.models.list().data


def the_documents_examples_work(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/serving.md tells to send is answered, and its Python runs as it is printed."""
    document = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8").replace("http://127.0.0.1:8000", server.url)
    curls = [line for line in document.replace("\\\n", " ").splitlines() if line.startswith("curl ")]
    for call in curls:
        words = shlex.split(call)
        path = words[1].removeprefix(server.url)
        body = json.loads(words[words.index("-d") + 1])
        body = {**body, "model": "tiny"} if "model" in body else body
        assert talk(server, post(path, body)).startswith("HTTP/1.1 200"), call
    assert len(curls) >= 2
    monkeypatch.setenv("G2R_TOKEN", TOKEN)
    (block,) = re.findall(r"^```python\n(.*?)^```", document, flags=re.MULTILINE | re.DOTALL)
    exec(compile(block.replace('"quickstart"', '"tiny"'), "docs/serving.md", "exec"), {})


def finishes_what_runs_and_refuses_what_comes(server: Running) -> None:
    """At SIGTERM a request whose body is on its way is finished, no other begins, and the status is 0."""
    whole = post("/respond", {"context": ["hi"]})
    with socket.create_connection(server.address, timeout=60) as connection, ThreadPoolExecutor(1) as threads:
        connection.sendall(whole[:-5])
        time.sleep(0.3)  # the head is read
        status = threads.submit(server.stop)
        for _ in range(600):
            try:
                socket.create_connection(server.address, timeout=1).close()
            except OSError:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the server still listens")
        assert server.process.poll() is None
        connection.sendall(whole[-5:])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        assert status.result(60) == 0


def test_what_cannot_be_served_is_told_at_once(tmp_path, capsys, tiny_encoder_folder):
    def refused(*flags: str) -> str:
        assert main(["serve", *flags]) == 2
        return capsys.readouterr().err

    assert "no response index here; name one with --serve.index=runs/x/index" in refused(f"--run.root={tmp_path}")
    index = f"--serve.index={write_index(tmp_path / 'index', tiny_responder(tiny_encoder_folder))}"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot listen there" in refused(index, f"--serve.port={taken.getsockname()[1]}")
    assert "--serve.port=70000: a port is from 0 to 65535" in refused(index, "--serve.port=70000")
    assert "no address to listen on" in refused(index, "--serve.host=no.such.host.invalid")
    assert "no exported encoder here" in refused(index, "--serve.port=0", "--serve.encoder=openvino")
    assert "--serve.token_file" in refused(index, "--serve.port=0", f"--serve.token_file={tmp_path}/absent")
    assert "did you mean 'max_batch'" in refused(index, "--serve.max_batc=3")
    assert "--serve.k=7: more than --serve.max_k=3" in refused(index, "--serve.k=7", "--serve.max_k=3")
