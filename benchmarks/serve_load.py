"""What the server adds to its Responder, and whether it holds out: one client, many, and very many requests.

``OMP_NUM_THREADS=2 python benchmarks/serve_load.py --index runs/quickstart/index``. Server, Responder and clients are
processes of their own on the same cores; everything goes over the loopback.

1. One client: each context is answered by a Responder in a process of its own, then by the server, in turn, so what
   else the machine does falls on both alike. What the server adds is the difference of the medians.
2. Many clients, each asking again when it is answered. Clients take time from the server, so its throughput is compared
   with that of the Responder alone, in batches of the server's size, *beside the same client load*: the same clients
   send as many requests a second to a stand-in that answers each with the same bytes. Server and Responder take turns.
   CPU seconds a request say the same on a busy machine.
3. Very many requests: the server's resident memory at intervals.

The answers are compared with the Responder's own; a request without a good answer is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from load_client import Wire, encoded
from report import write_report

HERE = Path(__file__).parent
ROUTES = {
    "respond": ("/respond", lambda context, k: {"context": context, "k": k}),
    "chat": (
        "/v1/chat/completions",
        lambda context, k: {
            "messages": [{"role": _role(context, i), "content": t} for i, t in enumerate(context)],
            "n": k,
        },
    ),
}


class Direct(Protocol):
    """The Responder without a server."""

    def one(self, which: int) -> float:
        """Return the seconds that one context takes alone."""

    def batches(self, size: int, seconds: float) -> dict[str, float]:
        """Answer batches for so long; return ``contexts``, ``seconds`` and ``cpu_seconds``."""


@dataclass(frozen=True)
class Load:
    """What is asked, by how many, for how long.

    Args:
        contexts: utterances, oldest first.
        first_replies: the Responder's best reply to each.
        k: replies a request.
        route: ``respond`` or ``chat``.
        clients: at once.
        seconds: of load in all.
        rounds: turns of server and Responder that these seconds are shared out over.
        batch: the server's ``max_batch``.
        singles: requests of the lone client.
        requests: of the last part.
    """

    contexts: Sequence[list[str]]
    first_replies: Sequence[str]
    k: int = 5
    route: str = "respond"
    clients: int = 64
    seconds: float = 60.0
    rounds: int = 3
    batch: int = 32
    singles: int = 300
    requests: int = 100_000

    def encoded(self) -> list[bytes]:
        """Return all requests as bytes."""
        path, body = ROUTES[self.route]
        return [encoded(path, body(context, self.k)) for context in self.contexts]

    def expected(self) -> list[str]:
        """Return what each answer should hold, as the server writes it."""
        return [json.dumps(text, ensure_ascii=False) for text in self.first_replies]


def measure(address: tuple[str, int], pid: int, direct: Direct, load: Load) -> dict[str, Any]:
    """Return all figures of a running server."""
    single = one_client(address, direct, load)
    rounds = [one_round(address, pid, direct, load) for _ in range(load.rounds)]
    return {
        "one client": single,
        "many clients": summed(rounds),
        "rounds": rounds,
        "memory": memory(address, pid, load),
    }


def one_client(address: tuple[str, int], direct: Direct, load: Load) -> dict[str, float]:
    """Return p50 and p99 in milliseconds of server and Responder, and what the one adds to the other."""
    wire, requests = Wire(address), load.encoded()
    server: list[float] = []
    alone: list[float] = []
    for number in range(load.singles + 10):
        which = number % len(requests)
        alone.append(1e3 * direct.one(which))
        answer, seconds = wire.ask(requests[which])
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server refuses: {answer.decode()}")
        server.append(1e3 * seconds)
    wire.close()
    server, alone = server[10:], alone[10:]  # the first ones warm up
    differences = [one - other for one, other in zip(server, alone, strict=True)]
    return {
        "server_p50_ms": statistics.median(server),
        "responder_p50_ms": statistics.median(alone),
        "added_p50_ms": statistics.median(server) - statistics.median(alone),
        "median_of_differences_ms": statistics.median(differences),
        "server_p99_ms": statistics.quantiles(server, n=100)[98],
        "responder_p99_ms": statistics.quantiles(alone, n=100)[98],
    }


def one_round(address: tuple[str, int], pid: int, direct: Direct, load: Load) -> dict[str, Any]:
    """Return the figures of the server under load, then of the Responder beside the same client load."""
    seconds = load.seconds / load.rounds
    before = cpu_of(pid)
    with clients(address, load, seconds=seconds) as asking:
        served = asking()
    served["server_cpu_seconds"] = cpu_of(pid) - before
    answer, _ = _asked_once(address, load)
    with stand_in(answer) as quiet, clients(quiet, load, seconds=seconds, rate=served["rate"]) as asking:
        beside: dict[str, Any] = {}
        thread = threading.Thread(target=lambda: beside.update(asking()))
        thread.start()
        alone = direct.batches(load.batch, seconds)
        thread.join()
    return {"server": served, "responder": alone, "clients beside the Responder": beside}


def summed(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return throughput and its share of the Responder's, over all rounds."""
    served = [one["server"] for one in rounds]
    alone = [one["responder"] for one in rounds]
    answered = sum(one["answered"] for one in served)
    contexts = sum(one["contexts"] for one in alone)
    rate = answered / sum(one["seconds"] for one in served)
    own = contexts / sum(one["seconds"] for one in alone)
    cpu = sum(one["server_cpu_seconds"] for one in served) / max(answered, 1)
    own_cpu = sum(one["cpu_seconds"] for one in alone) / max(contexts, 1)
    return {
        "requests": sum(one["sent"] for one in served),
        "lost": sum(one["sent"] - one["answered"] for one in served),
        "errors": sum(sum(one["errors"].values()) for one in served),
        "unlike_the_responder": sum(one["unlike"] for one in served),
        "seconds": sum(one["seconds"] for one in served),
        "requests_per_second": rate,
        "responder_per_second": own,
        "share": rate / own,
        "cpu_ms_a_request": 1e3 * cpu,
        "responder_cpu_ms_a_context": 1e3 * own_cpu,
        "p50_ms": statistics.median(one["p50_ms"] for one in served),
        "p99_ms": max(one["p99_ms"] for one in served),
    }


def memory(address: tuple[str, int], pid: int, load: Load) -> dict[str, Any]:
    """Return the server's resident memory over very many requests, in MiB, and what became of them.

    ``growth_mib`` is from the median of the second fifth of the time to that of the last: the first fifth fills caches.
    """
    process = psutil.Process(pid)
    seen: list[float] = []
    done = threading.Event()

    def watch() -> None:
        """Look again and again."""
        while not done.wait(0.05 if load.requests < 10_000 else 1.0):
            seen.append(process.memory_info().rss / 2**20)

    watching = threading.Thread(target=watch)
    with clients(address, load, count=load.requests) as asking:
        watching.start()
        found = asking()
        done.set()
        watching.join()
    fifth = max(1, len(seen) // 5)
    growth = statistics.median(seen[-fifth:]) - statistics.median(seen[fifth : 2 * fifth] or seen)
    shown = seen[:: max(1, len(seen) // 20)]
    return {**found, "rss_mib": [round(one, 1) for one in shown], "growth_mib": growth}


@contextmanager
def clients(address: tuple[str, int], load: Load, **limits: float) -> Iterator[Any]:
    """Give a function that lets the clients ask, and returns what became of it; they are a process of their own."""
    job = {
        "what": "clients", "address": address, "clients": load.clients, **limits,
        "requests": [one.decode("latin-1") for one in load.encoded()],
        "expected": [""] * len(load.contexts) if "rate" in limits else load.expected(),
    }  # fmt: skip
    with _process([sys.executable, str(HERE / "load_client.py")]) as talk:
        assert talk(job)["ready"]
        yield lambda: talk({"go": True})


@contextmanager
def stand_in(answer: bytes) -> Iterator[tuple[str, int]]:
    """Give the address of a server that always says the same."""
    with _process([sys.executable, str(HERE / "load_client.py")]) as talk:
        host, port = talk({"what": "stand-in", "answer": answer.decode("latin-1")})["address"]
        yield host, port


@contextmanager
def _process(command: Sequence[str]) -> Iterator[Any]:
    """Give a function that sends a line of JSON to a process and returns the one that it answers."""
    process = subprocess.Popen(list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    to, back = process.stdin, process.stdout

    def talk(said: dict[str, Any]) -> dict[str, Any]:
        """Say a line, hear a line."""
        to.write(json.dumps(said) + "\n")
        to.flush()
        line = back.readline()
        if not line:
            raise RuntimeError(f"{command[-1]} ended with status {process.wait()}")
        heard: dict[str, Any] = json.loads(line)
        return heard

    try:
        yield talk
    finally:
        to.close()
        back.close()
        process.terminate()
        process.wait(30)


def _asked_once(address: tuple[str, int], load: Load) -> tuple[bytes, float]:
    wire = Wire(address)
    try:
        return wire.ask(load.encoded()[0])
    finally:
        wire.close()


def _role(context: Sequence[str], place: int) -> str:
    return "user" if (len(context) - place) % 2 else "assistant"


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


# -- the processes of a whole run


class ResponderProcess:
    """:class:`Direct` in a process of its own (``serve_load.py --responder``)."""

    def __init__(self, talk: Any) -> None:
        self._talk = talk

    def one(self, which: int) -> float:
        """Return the seconds of one context."""
        return float(self._talk({"one": which})["seconds"])

    def batches(self, size: int, seconds: float) -> dict[str, float]:
        """Answer batches for so long."""
        found: dict[str, float] = self._talk({"batch": size, "seconds": seconds})
        return found


def responder_process() -> None:
    """Answer without a server, as lines on standard input ask for; the process of :class:`ResponderProcess`."""
    from g2r_lightning.inference import Responder

    job = json.loads(sys.stdin.readline())
    bot, contexts, k = Responder.load(job["index"], job["encoder"]), job["contexts"], job["k"]
    first = [bot.respond(context, k)[0].text for context in contexts]
    print(json.dumps({"first": first}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        begun, used, done = time.perf_counter(), time.process_time(), 0
        if "one" in asked:
            bot.respond(contexts[asked["one"]], k)
        else:
            while time.perf_counter() - begun < asked["seconds"]:
                batch = [contexts[(done + i) % len(contexts)] for i in range(asked["batch"])]
                bot.respond_all(batch, k)
                done += len(batch)
        passed = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - used, "contexts": done}
        print(json.dumps(passed), flush=True)


@contextmanager
def server_process(index: str, encoder: str | None, batch: int, *flags: str) -> Iterator[tuple[tuple[str, int], int]]:
    """Give address and process id of ``serve`` with its own settings, but for the rate of one address."""
    command = [sys.executable, "-m", "g2r_lightning", "serve", f"--serve.index={index}", "--serve.port=0"]
    command += [
        "--serve.rate=0",
        f"--serve.max_batch={batch}",
        *([f"--serve.encoder={encoder}"] if encoder else []),
        *flags,
    ]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as written:
            process = subprocess.Popen(command, stdout=written, stderr=written)
        try:
            while not (ready := re.search(r"ready: chat at http://([\d.]+):(\d+)/", log.read_text())):
                if process.poll() is not None:
                    raise RuntimeError(f"no server: {log.read_text()}")
                time.sleep(0.1)
            yield (ready[1], int(ready[2])), process.pid
        finally:
            process.terminate()
            process.wait(60)


def sample_contexts(count: int) -> list[list[str]]:
    """Return contexts of the shipped validation dialogues: the last one, two or three turns, some 20 to 60 tokens."""
    from g2r_lightning.paths import resolve_path

    lines = resolve_path("package:sample/validation.jsonl").read_text(encoding="utf-8").splitlines()
    dialogues = [json.loads(line)["turns"] for line in lines]
    found = [turns[max(0, turn - 1 - turn % 3) : turn] for turns in dialogues for turn in range(1, len(turns))]
    return found[:: max(1, len(found) // count)][:count]


def rows_of(found: dict[str, Any]) -> list[dict[str, str]]:
    """Return the table: each figure, what was measured, and what it should be."""
    single, many, kept = found["one client"], found["many clients"], found["memory"]
    goals = [
        ("added at one client, p50", f"{single['added_p50_ms']:.2f} ms", "< 2 ms"),
        ("server at one client, p50 / p99", f"{single['server_p50_ms']:.2f} / {single['server_p99_ms']:.2f} ms", ""),
        ("Responder alone, p50 / p99", f"{single['responder_p50_ms']:.2f} / {single['responder_p99_ms']:.2f} ms", ""),
        ("requests of many clients", f"{many['requests']:,} in {many['seconds']:.0f} s", ""),
        ("errors, lost", f"{many['errors']}, {many['lost']}", "0, 0"),
        ("requests per second", f"{many['requests_per_second']:.0f}", ""),
        ("batched Responder beside the clients", f"{many['responder_per_second']:.0f} contexts per second", ""),
        ("share of the Responder's throughput", f"{100 * many['share']:.0f}%", "≥ 80%"),
        (
            "CPU a request / a context of the Responder",
            f"{many['cpu_ms_a_request']:.2f} / {many['responder_cpu_ms_a_context']:.2f} ms",
            "",
        ),
        ("latency of many clients, p50 / p99", f"{many['p50_ms']:.0f} / {many['p99_ms']:.0f} ms", ""),
        (
            f"memory over {kept['sent']:,} requests",
            f"{kept['growth_mib']:+.1f} MiB, at last {kept['rss_mib'][-1]:.0f} MiB",
            "flat",
        ),
        ("errors, lost among these", f"{sum(kept['errors'].values())}, {kept['sent'] - kept['answered']}", "0, 0"),
    ]
    return [{"figure": figure, "measured": measured, "goal": goal} for figure, measured, goal in goals]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write ``docs/results/serve_load.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", default="runs/quickstart/index")
    parser.add_argument("--encoder", help="openvino, onnx, or an export's folder")
    parser.add_argument("--route", choices=list(ROUTES), default="respond")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load by many clients")
    parser.add_argument("--rounds", type=int, default=3, help="turns of server and Responder these are shared out over")
    parser.add_argument("--requests", type=int, default=100_000, help="over which memory is watched")
    parser.add_argument("--singles", type=int, default=300, help="requests of the lone client")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--name", default="serve_load", help="of the page in docs/results")
    parser.add_argument("--responder", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.responder:
        responder_process()
        return
    contexts = sample_contexts(200)
    job = {"index": given.index, "encoder": given.encoder, "contexts": contexts, "k": given.k}
    with _process([sys.executable, __file__, "--responder"]) as talk:
        first = talk(job)["first"]
        load = Load(contexts, first, given.k, given.route, given.clients, given.seconds, given.rounds, given.batch,
                    given.singles, given.requests)  # fmt: skip
        with server_process(given.index, given.encoder, given.batch) as (address, pid):
            found = measure(address, pid, ResponderProcess(talk), load)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    about = (
        f"`{ROUTES[given.route][0]}` over the loopback, k = {given.k}, {given.clients} clients, batches of at most "
        f"{given.batch}, encoder {given.encoder or 'PyTorch'}, OMP_NUM_THREADS={threads}, contexts of the shipped "
        "validation dialogues. How it is measured stands at the top of `benchmarks/serve_load.py`."
    )
    command = " ".join(["python benchmarks/serve_load.py", *(sys.argv[1:] if arguments is None else arguments)])
    print(write_report(given.name, "The server under load", command, about, rows_of(found), found))


if __name__ == "__main__":
    main()
