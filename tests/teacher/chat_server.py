"""A chat completions server on the loopback interface that answers as a test wants it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass
class Answer:
    """What goes back: ``body`` as JSON, or bytes as they are; ``dropped`` closes the connection instead."""

    body: Body | bytes = b""
    status: int = 200
    delay_s: float = 0.0
    dropped: bool = False
    headers: dict[str, str] = field(default_factory=dict)


def completion(*texts: str, finish: str = "stop", tokens: int | None = 7) -> Body:
    """Return a completion with a choice a text, the last choice first."""
    choices = [
        {"index": place, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
        for place, text in enumerate(texts)
    ]
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens, "prompt_tokens": 1, "total_tokens": 8}}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices[::-1], **usage}


class ChatServer:
    """Counts and keeps requests, and asks ``behave(request number, body)`` for each answer."""

    def __init__(self, behave: Callable[[int, Body], Answer]) -> None:
        self.behave = behave
        self.requests: list[Body] = []
        self.keys: list[str | None] = []
        self.paths: list[str] = []
        self.under_way = self.most_under_way = 0
        self._lock = threading.Lock()

    def take(self, handler: BaseHTTPRequestHandler) -> Answer:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            number = len(self.requests)
            self.requests.append(body)
            self.keys.append(handler.headers.get("Authorization"))
            self.paths.append(handler.path)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        answer = self.behave(number, body)
        time.sleep(answer.delay_s)
        with self._lock:
            self.under_way -= 1
        return answer


@contextmanager
def serving(behave: Callable[[int, Body], Answer]) -> Iterator[tuple[str, ChatServer]]:
    """Give the base URL of a server that behaves so, and the server."""
    chat = ChatServer(behave)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            answer = chat.take(self)
            if answer.dropped:
                self.close_connection = True
                return
            content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", "retry-after-ms": "5", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            try:
                self.wfile.write(content)
            except OSError:  # the client has given up waiting
                self.close_connection = True

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
