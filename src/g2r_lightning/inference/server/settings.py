"""Settings of ``serve``: where it listens, what answers, and what it refuses."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from g2r_lightning.errors import ConfigError

TOKEN_VARIABLE = "G2R_TOKEN"  # noqa: S105  # the variable's name
SHORTEST_TOKEN = 16
LAST_PORT = 65_535


@dataclass(frozen=True)
class ServeSettings:
    """What ``serve`` answers from, where it listens, and its limits.

    Args:
        index: folder of the response index; that of the run (``run``) by default.
        encoder: ``openvino``, ``onnx``, or the folder of an export, in PyTorch's place.
        name: the model's name for clients; the name of the run that made the index by default.
        host: address to listen on; whoever reaches it can ask, so give it a token where it is not the loopback.
        port: 0 takes a free one.
        token_file: file whose first line is the bearer token; the environment variable G2R_TOKEN by default.
        allowed_hosts: names by which clients may call (the Host header); those of the loopback by default where that
            is listened on, else any.
        cors_origins: origins (``https://example.org``) whose pages may ask; none by default.
        trusted_proxies: addresses whose X-Forwarded-For is believed; none by default.
        k: replies of ``/respond`` where a request does not say.
        max_k: most replies that a request may ask for.
        fallback: what ``/v1/chat/completions`` says where the student has no reply; nothing by default.
        max_body: bytes of a request.
        max_turns: messages, or utterances, of a request; persona lines too.
        max_turn_chars: characters of each.
        max_batch: requests that are answered in one pass.
        max_wait_ms: how long a request that found the student busy waits for others to join it.
        max_queue: requests that may wait; what comes then is told to come again.
        max_connections: open at a time.
        timeout: seconds until a request is given up, and for a body to arrive.
        reload: seconds between looks at the index's folder: what was added, removed, folded in or built anew is taken
            up without losing a request. 0 never looks.
        stop_timeout: seconds for running requests after SIGTERM or SIGINT.
        rate: requests per second of one client in the long run; 0 for no limit.
        burst: requests that one client may send at once.
        log_requests: a line a request: client, method, route, status, time.
        log_text: contexts and replies in the log, for debugging; they are private.
    """

    index: str | None = None
    encoder: str | None = None
    name: str | None = None
    host: str = "127.0.0.1"
    port: NonNegativeInt = 8000
    token_file: str | None = None
    allowed_hosts: list[str] = field(default_factory=list)
    cors_origins: list[str] = field(default_factory=list)
    trusted_proxies: list[str] = field(default_factory=list)
    k: PositiveInt = 5
    max_k: PositiveInt = 100
    fallback: str = ""
    max_body: PositiveInt = 262_144
    max_turns: PositiveInt = 1_000
    max_turn_chars: PositiveInt = 10_000
    max_batch: PositiveInt = 32
    max_wait_ms: NonNegativeFloat = 2.0
    max_queue: PositiveInt = 256
    max_connections: PositiveInt = 1_000
    timeout: PositiveFloat = 10.0
    reload: NonNegativeFloat = 2.0
    stop_timeout: PositiveInt = 10
    rate: NonNegativeFloat = 50.0
    burst: PositiveInt = 100
    log_requests: bool = True
    log_text: bool = False

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ConfigError: ``k`` is over ``max_k``, or there is no such port.
        """
        if self.port > LAST_PORT:  # the system would take the port that is left of it after 16 bits
            raise ConfigError(f"--serve.port={self.port}: a port is from 0 to {LAST_PORT}")
        if self.k > self.max_k:
            raise ConfigError(f"--serve.k={self.k}: more than --serve.max_k={self.max_k}")


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(settings: ServeSettings, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the bearer token of file or environment, ``None`` where there is none.

    It is no flag: the command line of a process can be read by all users of its machine.

    Raises:
        ConfigError: the file cannot be read, or the token is one that no client could send or that can be guessed.
    """
    if settings.token_file is None:
        where, token = f"the environment variable {TOKEN_VARIABLE}", environment.get(TOKEN_VARIABLE)
        if token is None:
            return None
    else:
        where = f"--serve.token_file={settings.token_file}"
        try:
            token = Path(settings.token_file).expanduser().read_text(encoding="utf-8").partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where}: cannot be read ({error})") from error
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{where}: a token is at least {SHORTEST_TOKEN} letters, digits and signs without spaces; make one with "
            "`openssl rand -hex 32`"
        )
    return token
