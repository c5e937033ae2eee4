"""What the server counts for Prometheus: requests, their time, batches, the queue, replies. No text, no client.

Each server has a registry of its own, so several can live in one process (tests do).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client import Counter as Count
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from g2r_lightning.inference.responder import Reply

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SOURCES = 50  # a response set may have a source for each document it came from
CONTENT_TYPE = CONTENT_TYPE_LATEST


class ServerMetrics:
    """Counters and histograms of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Count("g2r_requests", "Requests", ["route", "status"], registry=self.registry)
        self._seconds = Histogram(
            "g2r_request_seconds",
            "Time of a request until the end of its response",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._batches = Histogram(
            "g2r_batch_size", "Requests answered in one pass", buckets=SIZES, registry=self.registry
        )
        self._batch_seconds = Histogram(
            "g2r_batch_seconds", "Time of one pass: tokens, vectors, search", buckets=SECONDS, registry=self.registry
        )
        self._queue = Gauge("g2r_queue_depth", "Requests that wait for the student", registry=self.registry)
        self._replies = Count("g2r_replies", "Replies given", ["source"], registry=self.registry)
        self._abstentions = Count("g2r_abstentions", "Requests without any reply", registry=self.registry)
        self._size = Gauge("g2r_index_responses", "Responses in the index", registry=self.registry)
        self._sources: set[str] = set()
        ProcessCollector(registry=self.registry)

    def watch(self, responses: Callable[[], float], queue_depth: Callable[[], float]) -> None:
        """Take what is read when Prometheus asks."""
        self._size.set_function(responses)
        self._queue.set_function(queue_depth)

    def watch_codes(self, told: Callable[[], Mapping[str, float]]) -> None:
        """Take the counts of a poly-encoder's search (:class:`~g2r_lightning.index.poly_search.CodeCounts`)."""
        gauge = Gauge(
            "g2r_code_searches",
            "Contexts searched by codes since the index was read: proved, first_round of those, unproved",
            ["answer"],
            registry=self.registry,
        )
        for name in ("proved", "first_round", "unproved"):
            gauge.labels(name).set_function(partial(lambda counted: told().get(counted, 0), name))

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one request.

        Args:
            route: its path as declared, never as asked for: that would be a label for every text somebody types.
            status: of the response.
            seconds: until its end.
        """
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, size: int, seconds: float) -> None:
        """Count one pass."""
        self._batches.observe(size)
        self._batch_seconds.observe(seconds)

    def replies(self, replies: Sequence[Reply]) -> None:
        """Count what one request got, by source; sources after the first fifty are ``other``."""
        if not replies:
            self._abstentions.inc()
        for source, count in Counter(reply.source for reply in replies).items():
            if len(self._sources) < SOURCES:
                self._sources.add(source)
            self._replies.labels(source if source in self._sources else "other").inc(count)

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        return generate_latest(self.registry)
