"""The client side of the load test, in a process of its own: as little work a request as Python allows.

Requests are encoded beforehand, and an answer is looked at as bytes. ``python load_client.py`` reads one job as a line
of JSON, says ``ready``, waits for a line, and answers with one line of JSON when the job is done. It needs the standard
library alone, so that it starts at once and takes no memory from the server.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length: "


def encoded(path: str, body: Any, token: str | None = None) -> bytes:
    """Return a POST request as it goes over the wire."""
    content = json.dumps(body).encode()
    secret = f"Authorization: Bearer {token}\r\n" if token else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{secret}Content-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def length_of(head: bytes) -> int:
    r"""Return the length of the body that follows a head.

    >>> length_of(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n")
    12
    """
    lowered = head.lower()
    start = lowered.index(LENGTH) + len(LENGTH)
    return int(lowered[start : lowered.index(b"\r\n", start)])


class Wire:
    """One client that waits for each answer; its own time is what a socket takes."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> tuple[bytes, float]:
        """Return head and body of the answer, and the seconds until its last byte."""
        begun = time.perf_counter()
        self._socket.sendall(request)
        received = self._socket.recv(65_536)
        while HEAD_END not in received:
            received += self._more()
        end = received.index(HEAD_END) + len(HEAD_END)
        while len(received) < end + length_of(received[:end]):
            received += self._more()
        return received, time.perf_counter() - begun

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _more(self) -> bytes:
        block = self._socket.recv(65_536)
        if not block:
            raise ConnectionError("the server closed the connection in the middle of an answer")
        return block


@dataclass
class Tally:
    """What became of the requests."""

    sent: int = 0
    answered: int = 0
    unlike: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)

    def failed(self, why: str) -> None:
        """Count a request that got no good answer."""
        self.errors[why] = self.errors.get(why, 0) + 1


async def load(
    address: tuple[str, int],
    requests: Sequence[bytes],
    expected: Sequence[bytes],
    clients: int,
    more: Callable[[int, float], bool],
    rate: float | None = None,
) -> Tally:
    """Let clients ask, each over one connection, the next request when the last is answered.

    Args:
        address: of the server.
        requests: taken in turn, each client from a place of its own.
        expected: bytes that the answer to each request should hold.
        clients: how many.
        more: whether another request should be sent, of how many were sent and the seconds since the start.
        rate: requests per second of all clients together; as fast as they are answered by default.
    """
    tally = Tally()
    begun = time.perf_counter()

    async def client(number: int) -> None:
        """Ask until it is enough; a connection that breaks is an error, and opened again."""
        reader, writer = await asyncio.open_connection(*address)
        place = number * len(requests) // clients
        turn = 0
        while more(tally.sent, time.perf_counter() - begun):
            if rate is not None:
                due = (turn * clients + number) / rate
                await asyncio.sleep(max(0.0, due - (time.perf_counter() - begun)))
                turn += 1
            which = place % len(requests)
            place += 1
            tally.sent += 1
            asked = time.perf_counter()
            try:
                writer.write(requests[which])
                head = await reader.readuntil(HEAD_END)
                body = await reader.readexactly(length_of(head))
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                tally.failed(type(error).__name__)
                writer.close()
                reader, writer = await asyncio.open_connection(*address)
                continue
            tally.latencies.append(time.perf_counter() - asked)
            tally.answered += 1
            if not head.startswith(b"HTTP/1.1 200"):
                tally.failed(head[9:12].decode())
            elif expected[which] not in body:
                tally.unlike += 1
        writer.close()

    await asyncio.gather(*map(client, range(clients)))
    return tally


class StandIn(asyncio.Protocol):
    """A server that answers every request with the same bytes: what the client side costs by itself."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport: Any = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Answer what has arrived whole."""
        self._received += data
        while HEAD_END in self._received:
            end = self._received.index(HEAD_END) + len(HEAD_END)
            whole = end + length_of(self._received[:end])
            if len(self._received) < whole:
                return
            self._received = self._received[whole:]
            self._transport.write(self.answer)


def clients_job(job: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Return the load as a function of nothing."""
    requests = [one.encode("latin-1") for one in job["requests"]]
    expected = [one.encode() for one in job["expected"]]
    count, seconds = job.get("count"), job.get("seconds")

    def more(sent: int, passed: float) -> bool:
        """Until so many are sent, or so long has passed."""
        return sent < count if count is not None else passed < seconds

    def run() -> dict[str, Any]:
        """Ask, and count."""
        begun, used = time.perf_counter(), time.process_time()
        tally = asyncio.run(load(tuple(job["address"]), requests, expected, job["clients"], more, job.get("rate")))
        passed = time.perf_counter() - begun
        cuts = statistics.quantiles(tally.latencies, n=100) if len(tally.latencies) > 1 else [0.0] * 99
        return {
            "sent": tally.sent, "answered": tally.answered, "unlike": tally.unlike, "errors": tally.errors,
            "seconds": passed, "cpu_seconds": time.process_time() - used, "rate": tally.answered / passed,
            "p50_ms": 1e3 * cuts[49], "p95_ms": 1e3 * cuts[94], "p99_ms": 1e3 * cuts[98],
        }  # fmt: skip

    return run


async def stand_in(answer: bytes) -> None:
    """Serve the same answer on a free port, which is printed, until standard input ends."""
    StandIn.answer = answer
    loop = asyncio.get_running_loop()
    server = await loop.create_server(StandIn, "127.0.0.1", 0)
    say({"address": server.sockets[0].getsockname()})
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def say(found: dict[str, Any]) -> None:
    """Print one line of JSON."""
    print(json.dumps(found), flush=True)


def main() -> None:
    """Do one job."""
    job = json.loads(sys.stdin.readline())
    if job["what"] == "stand-in":
        asyncio.run(stand_in(job["answer"].encode("latin-1")))
        return
    run = clients_job(job)
    say({"ready": True})
    sys.stdin.readline()
    say(run())


if __name__ == "__main__":
    main()
