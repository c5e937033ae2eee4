"""What is too much: requests of one client, and the length of what it says."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from g2r_lightning.dialogue.text import half_character, text_key
from g2r_lightning.inference.server.refusals import RefusedError
from g2r_lightning.inference.server.settings import ServeSettings

CLIENTS = 10_000


class TokenBuckets:
    """A bucket of tokens for every client: a request takes one, and they come back at a steady rate.

    The clients that were longest away are forgotten, so memory is bounded; a forgotten one starts with a full bucket.

    Args:
        rate: tokens per second; 0 never refuses.
        burst: what a bucket holds.
        clients: how many buckets are kept.
        clock: seconds.
    """

    def __init__(
        self, rate: float, burst: int, clients: int = CLIENTS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate, self.burst, self.clients, self._clock = rate, burst, clients, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Take a token; return 0, or the seconds until there is one again."""
        if not self.rate:
            return 0.0
        now = self._clock()
        tokens, seen = self._buckets.pop(client, (float(self.burst), now))
        tokens = min(self.burst, tokens + (now - seen) * self.rate)
        taken = tokens >= 1
        self._buckets[client] = (tokens - taken, now)
        if len(self._buckets) > self.clients:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - tokens) / self.rate

    def check(self, client: str) -> None:
        """Take a token.

        Raises:
            RefusedError: 429, with the seconds to wait in ``Retry-After``.
        """
        wait = self.take(client)
        if wait:
            seconds = max(1, math.ceil(wait))
            raise RefusedError(
                429,
                f"more than {self.rate:g} requests per second; wait {seconds} s",
                "rate_limit_exceeded",
                headers={"retry-after": str(seconds)},
            )


def client_key(host: str) -> str:
    """Return whose bucket an address takes from: an IPv6 customer has a whole /64 of them.

    >>> client_key("192.0.2.7"), client_key("2001:db8::1") == client_key("2001:db8::2")
    ('192.0.2.7', True)
    """
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(address.ipv4_mapped or ipaddress.IPv6Network((address, 64), strict=False))


def check_texts(texts: Sequence[str], field: str, settings: ServeSettings) -> None:
    """Refuse utterances or persona lines that are too many, too long, empty, or no text.

    Args:
        texts: what a client sent.
        field: its name in the request, for the message.
        settings: the limits.

    Raises:
        RefusedError: 400.
    """
    check_count(len(texts), field, settings)
    for place, text in enumerate(texts):
        check_text(text, f"{field}[{place}]", settings)


def check_count(count: int, field: str, settings: ServeSettings) -> None:
    """Refuse too many messages, utterances or lines.

    Raises:
        RefusedError: 400.
    """
    if count > settings.max_turns:
        raise RefusedError(
            400,
            f"{field}: {count}, and at most {settings.max_turns} are taken; send the last ones",
            "too_many_turns",
            field,
        )


def check_text(text: str, field: str, settings: ServeSettings) -> None:
    """Refuse one text.

    Raises:
        RefusedError: 400.
    """
    if len(text) > settings.max_turn_chars:
        raise RefusedError(
            400,
            f"{field}: {len(text)} characters, and at most {settings.max_turn_chars} are taken",
            "text_too_long",
            field,
        )
    if half_character(text):
        raise RefusedError(400, f"{field}: holds half of a character (an unpaired surrogate)", "invalid_text", field)
    if not text_key(text):
        raise RefusedError(400, f"{field}: is empty", "empty_text", field)


def check_k(k: int, field: str, settings: ServeSettings) -> None:
    """Refuse too many replies.

    Raises:
        RefusedError: 400.
    """
    if k > settings.max_k:
        raise RefusedError(400, f"{field}={k}: at most {settings.max_k} replies", "too_many_replies", field)
