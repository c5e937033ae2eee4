"""What every request passes before the API sees it, and on its way back: name, rate, token, length, time, log.

One plain ASGI callable around the application, since the framework's own middleware costs more than the search. The
body is read here, so that one that is too long, or never ends, is refused before anything parses it.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import traceback
from collections.abc import Iterable
from threading import Event
from typing import Any

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from g2r_lightning.inference.server.limits import TokenBuckets, client_key
from g2r_lightning.inference.server.metrics import ServerMetrics
from g2r_lightning.inference.server.refusals import FAILED, RefusedError, stopping
from g2r_lightning.inference.server.settings import ServeSettings, is_loopback

log = logging.getLogger(__name__)

OPEN = ("/", "/health")  # without a token: the page has no secrets, and probes ask before anybody logs in
UNKNOWN = "(unknown)"
FRAMES = 6  # of a failure in the log: those before are the framework's
DRAINED = 64  # times the longest body are read and dropped, so that a client that is still sending hears the refusal
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


class Gate:
    """Check requests, count them, and catch what the application throws.

    Args:
        app: the application.
        settings: limits and names.
        metrics: told of every request.
        token: what clients must bring; ``None`` for nothing.
        routes: the paths that exist; what begins with one that ends in ``/`` is its.
        stops: set when the server is about to stop.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServeSettings,
        metrics: ServerMetrics,
        token: str | None,
        routes: Iterable[str],
        stops: Event | None = None,
    ) -> None:
        self._stopping = stops or Event()
        self._app, self._settings, self._metrics = app, settings, metrics
        self._token = None if token is None else f"Bearer {token}".encode()
        self._routes = tuple(routes)
        self._buckets = TokenBuckets(settings.rate, settings.burst)
        self._hosts = _hosts(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the application's own start and end pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        answer = _Answering(send)
        try:
            await self._app(scope, await self._checked(scope, receive), answer)
        except RefusedError as refusal:
            await refusal.response()(scope, receive, answer)
        except asyncio.CancelledError:  # the time for running requests is over
            if answer.status is not None or not self._stopping.is_set():
                raise
            await stopping().response()(scope, receive, answer)
        except Exception as error:  # a client hears of it, and the next one is served
            self._log_failure(error)
            if answer.status is None:
                await FAILED.response()(scope, receive, answer)
        finally:
            self._tell(scope, answer.status or 499, time.perf_counter() - begun)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """Return a ``receive`` that gives the whole body, after all checks.

        Raises:
            RefusedError: one failed.
        """
        if self._stopping.is_set():
            raise stopping()
        headers = Headers(scope=scope)
        if self._hosts and _host_name(headers.get("host", "")) not in self._hosts:
            raise RefusedError(403, "this server is not called by that name (--serve.allowed_hosts)", "unknown_host")
        self._buckets.check(_client(scope))
        if self._token is not None and scope["path"] not in OPEN:
            self._check_token(headers.get("authorization", "").encode("latin-1"))
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return receive
        return _replay(await self._body(receive), receive)

    def _check_token(self, brought: bytes) -> None:
        assert self._token is not None
        scheme, _, rest = brought.partition(b" ")
        if not hmac.compare_digest(scheme.capitalize() + b" " + rest, self._token):
            told = "wrong token" if brought else "no token: send the header Authorization: Bearer ..."
            raise RefusedError(401, told, "invalid_api_key", headers={"www-authenticate": "Bearer"})

    async def _body(self, receive: Receive) -> bytes:
        """Return the body.

        Raises:
            RefusedError: 413 where it is too long, 408 where it does not arrive in time.
        """
        longest = self._settings.max_body
        chunks: list[bytes] = []
        size = 0
        try:
            with anyio.fail_after(self._settings.timeout):
                more = True
                while more and size <= DRAINED * longest:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedError(400, "the client went away", "disconnected")
                    size += len(message.get("body", b""))
                    if size <= longest:
                        chunks.append(message.get("body", b""))
                    more = message.get("more_body", False)
        except TimeoutError:
            raise RefusedError(
                408, f"the body did not arrive within {self._settings.timeout:g} s", "timeout", headers=_CLOSE
            ) from None
        if size > longest:
            raise RefusedError(413, f"the body is longer than {longest} bytes", "body_too_long", headers=_CLOSE)
        return b"".join(chunks)

    def _log_failure(self, error: Exception) -> None:
        """Log where it happened; what the message says may hold a user's text."""
        if self._settings.log_text:
            log.error("a request failed", exc_info=error)
            return
        frames = "".join(traceback.format_tb(error.__traceback__, limit=-FRAMES))
        log.error(
            "a request failed with %s (its message is told with --serve.log_text=true)\n%s",
            type(error).__name__,
            frames,
        )

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"]
        route = path if path in self._routes else UNKNOWN
        if route == UNKNOWN:
            route = next((one for one in self._routes if one != "/" and one[-1] == "/" and path.startswith(one)), route)
        self._metrics.request(route, status, seconds)
        if self._settings.log_requests:
            log.info("%s %s %s %d %.1f ms", _client(scope), scope["method"], route, status, 1000 * seconds)


class _Answering:
    """The way back to the client: adds the headers of every response, and remembers its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            there = {name for name, _ in message["headers"]}
            message["headers"] += [one for one in HEADERS if one[0] not in there]
        await self._send(message)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives the body that was read, then whatever comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        """Return the body once."""
        return waiting.pop() if waiting else await receive()

    return again


def _hosts(settings: ServeSettings) -> frozenset[str]:
    """Return the names by which the server may be called; empty for any.

    A page in a browser can point a name of its own at 127.0.0.1 and would then be no stranger to a server there.
    """
    named = {name.lower() for name in settings.allowed_hosts}
    if not is_loopback(settings.host):
        return frozenset(named)
    return frozenset({*named, settings.host.lower(), "localhost", "127.0.0.1", "::1"})


def _host_name(header: str) -> str:
    """Return the name in a Host header, without its port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _client(scope: Scope) -> str:
    client: Any = scope.get("client")
    return client_key(client[0]) if client else "unknown"


_CLOSE = {"connection": "close"}
