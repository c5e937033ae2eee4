"""What the routes share: the student, the queue before it, the limits, the counters."""

from __future__ import annotations

from typing import Any

from g2r_lightning.inference.server.answering import Answer, Answerer, Ask
from g2r_lightning.inference.server.batching import Batcher
from g2r_lightning.inference.server.metrics import ServerMetrics
from g2r_lightning.inference.server.settings import ServeSettings


class Service:
    """One student at the service of many clients.

    Args:
        answerer: student and index.
        settings: limits.
    """

    def __init__(self, answerer: Answerer, settings: ServeSettings) -> None:
        self.answerer, self.settings = answerer, settings
        self.metrics = ServerMetrics()
        self.batcher = Batcher(
            answerer.answer, settings.max_batch, settings.max_wait_ms, settings.max_queue, self.metrics.batch
        )
        self.metrics.watch(answerer.responses, lambda: len(self.batcher))

    async def ask(self, ask: Ask) -> Answer:
        """Return the answer to one question.

        Raises:
            RefusedError: the server is too busy, too slow, or stopping.
        """
        answer = await self.batcher.submit(ask, self.settings.timeout)
        self.metrics.replies(answer.replies)
        return answer

    def health(self) -> tuple[dict[str, Any], int]:
        """Return what ``/health`` tells, and its status."""
        trouble = self.answerer.trouble()
        reason = trouble
        if trouble is None and self.answerer.outdated():
            reason = "another index has taken the place of the one that answers; restart to answer from it"
        told = {
            "status": "ok" if trouble is None else "unavailable",
            "model": self.answerer.name,
            "responses": self.answerer.responses,
            "reason": reason,
        }
        return told, 200 if trouble is None else 503
