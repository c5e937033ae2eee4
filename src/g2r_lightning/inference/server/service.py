"""What the routes share: the student, the queue before it, the limits, the counters."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

from g2r_lightning.inference.server.answering import Answer, Answerer, Ask
from g2r_lightning.inference.server.batching import Batcher
from g2r_lightning.inference.server.metrics import ServerMetrics
from g2r_lightning.inference.server.settings import ServeSettings

log = logging.getLogger(__name__)


BEHIND = "the index has changed and cannot be read again; answers come from what was read before. The log says why"


class Service:
    """One student at the service of many clients.

    Args:
        answerer: student and index.
        settings: limits; no request may ask for more replies than a second stage ranks.
    """

    def __init__(self, answerer: Answerer, settings: ServeSettings) -> None:
        rerank = answerer.responder.rerank
        if rerank is not None and rerank.n < settings.max_k:
            settings = replace(settings, k=min(settings.k, rerank.n), max_k=rerank.n)
        self.answerer, self.settings = answerer, settings
        self.metrics = ServerMetrics()
        self.batcher = Batcher(
            answerer.answer, settings.max_batch, settings.max_wait_ms, settings.max_queue, self.metrics.batch
        )
        self.metrics.watch(lambda: answerer.responses, lambda: len(self.batcher))
        if answerer.responder.codes is not None:
            self.metrics.watch_codes(lambda: answerer.responder.codes or {})

    async def ask(self, ask: Ask) -> Answer:
        """Return the answer to one question.

        Raises:
            RefusedError: the server is too busy, too slow, or stopping.
        """
        answer = await self.batcher.submit(ask, self.settings.timeout)
        self.metrics.replies(answer.replies)
        return answer

    async def follow(self) -> None:
        """Look at the index's folder every few seconds, for as long as the server runs."""
        while self.settings.reload:
            await asyncio.sleep(self.settings.reload)
            await self.refresh()

    async def refresh(self) -> None:
        """Take up a changed index, read beside the answering; what cannot be read is told once, and tried again."""
        told = self.answerer.behind
        try:
            if await asyncio.to_thread(self.answerer.refresh):
                await self.batcher.run(self.answerer.warm_up)
                log.info("the index has changed: answering from %d responses now", self.answerer.responses)
        except Exception as error:  # whatever it is, requests go on
            if told is None or told != self.answerer.behind:
                log.warning("warning: the index has changed and cannot be read again, answers stay: %s", error)

    def health(self) -> tuple[dict[str, Any], int]:
        """Return what ``/health`` tells, and its status."""
        trouble = self.answerer.trouble()
        told = {
            "status": "ok" if trouble is None else "unavailable",
            "model": self.answerer.name,
            "responses": self.answerer.responses,
            "reason": trouble or (self.answerer.behind and BEHIND),
        }
        return told, 200 if trouble is None else 503
