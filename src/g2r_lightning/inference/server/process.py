"""The server as a process: a socket, a loaded student, and an orderly end at SIGTERM or SIGINT.

The socket is bound before the student is loaded, so a port that is taken is told at once; it listens when the student
is warm, so whoever gets a connection gets an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import threading
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from g2r_lightning.errors import ConfigError
from g2r_lightning.inference.server.settings import ServeSettings

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM)
FAREWELL_S = 0.5
"""How long the server still listens after a signal, telling what comes that it stops: whoever is connected hears it."""

KEEP_ALIVE_S = 75  # longer than clients keep an idle connection: they should be the ones to close it


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and does not listen yet.

    Raises:
        ConfigError: the address is not this machine's, or the port is taken or not to be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(f"--serve.host={host}: no address to listen on ({error})") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except (OSError, OverflowError) as error:
        made.close()
        raise ConfigError(
            f"--serve.host={host} --serve.port={port}: cannot listen there ({error}); choose another port, or 0 for any"
        ) from error
    return made


def address_of(listening: socket.socket) -> str:
    """Return the URL of a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_until_stopped(
    app: ASGIApp, listening: socket.socket, settings: ServeSettings, stopping: threading.Event
) -> None:
    """Serve until SIGTERM or SIGINT, finish what runs, and return.

    Args:
        app: the application.
        listening: of :func:`bound_socket`.
        settings: limits.
        stopping: the application's, set before it is stopped.
    """
    gc.collect()
    gc.freeze()  # a million texts are not looked through again at every full collection
    Server(app, settings, stopping).run(sockets=[listening])


def _config(app: ASGIApp, settings: ServeSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        log_config=None,  # this package's own log tells what there is to tell
        access_log=False,  # uvicorn's has query strings
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.stop_timeout,
    )


class Server(uvicorn.Server):
    """uvicorn's server with another end.

    1. The signal is not raised again: stopping is no failure here.
    2. For half a second it still listens, and answers what comes with 503; without that, whoever had just sent a
       request over an open connection would see it cut.
    3. Requests that run have ``stop_timeout`` seconds; those that are not done then are answered with 503 too.

    Args:
        app: the application.
        settings: limits.
        stopping: the application's, set at the beginning of the end.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, stopping: threading.Event) -> None:
        super().__init__(_config(app, settings))
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell what comes that the server stops, then stop."""
        self._stopping.set()
        if not self.force_exit:
            await asyncio.sleep(FAREWELL_S)
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        where = address_of((sockets or [])[0])
        log.info("ready: chat at %s/ , base URL for OpenAI's clients %s/v1", where, where)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals while serving; twice SIGINT ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
