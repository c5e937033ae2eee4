"""Several requests in one pass, without making a lone one wait.

Encoding and searching take one thread: two passes at a time would only share the cores. A request that finds the
thread idle is answered at once. Those that come while it works wait in a queue; when it is done, they go in together,
at most ``max_batch`` of them, as soon as the oldest has waited ``max_wait_ms`` (the clients that were just answered may
be about to ask again). So batches grow with the load by themselves, and at one client there is none.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from g2r_lightning.inference.server.answering import Answer, Ask
from g2r_lightning.inference.server.refusals import RefusedError, stopping

Result = Answer | Exception


@dataclass(eq=False, slots=True)
class _Waiting:
    ask: Ask
    future: asyncio.Future[Answer]
    since: float


class Batcher:
    """A queue of requests and the thread that answers them.

    Args:
        answer: answers questions that join, in their order; runs in the thread.
        max_batch: most questions of one pass.
        max_wait_ms: see the module.
        max_queue: most requests that wait.
        observe: told the size and the seconds of every pass, where it is given.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Ask]], list[Answer]],
        max_batch: int,
        max_wait_ms: float,
        max_queue: int,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        self.max_batch, self.max_wait, self.max_queue = max_batch, max_wait_ms / 1000, max_queue
        self._answer, self._observe = answer, observe
        self._queue: deque[_Waiting] = deque()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy = False
        self._closed = False

    def __len__(self) -> int:
        return len(self._queue)

    async def submit(self, ask: Ask, timeout: float) -> Answer:
        """Return the answer to a question.

        Args:
            ask: the question.
            timeout: seconds until it is given up.

        Raises:
            RefusedError: 503 where too many wait or the server stops, 504 where the time is over.
        """
        self._refuse()
        loop = self._started()
        waiting = _Waiting(ask, loop.create_future(), loop.time())
        self._queue.append(waiting)
        if self._timer is None or len(self._queue) >= self.max_batch:
            self._next()
        given_up = loop.call_later(timeout, self._give_up, waiting, timeout)
        try:
            return await waiting.future
        except asyncio.CancelledError:
            self._forget(waiting)
            raise
        finally:
            given_up.cancel()

    async def run(self, job: Callable[[], None]) -> None:
        """Do something in the thread, which keeps what libraries make for each thread that calls them."""
        loop = self._started()
        done = loop.create_future()

        def reported() -> None:
            """Do it, and tell."""
            try:
                job()
            except Exception as error:
                loop.call_soon_threadsafe(done.set_exception, error)
            else:
                loop.call_soon_threadsafe(done.set_result, None)

        self._work.put(reported)
        await done

    def close(self) -> None:
        """Refuse what waits and what comes, and end the thread after its present pass."""
        self._closed = True
        while self._queue:
            self._settle(self._queue.popleft(), stopping())
        self._work.put(None)

    def _refuse(self) -> None:
        if self._closed:
            raise stopping()
        if len(self._queue) >= self.max_queue:
            raise RefusedError(
                503, "too many requests are waiting; come again", "overloaded", headers={"retry-after": "1"}
            )

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            # a daemon: a pass that never ends must not keep a stopped server alive
            threading.Thread(target=self._work_off, name="student", daemon=True).start()
        return self._loop

    def _next(self) -> None:
        """Give the thread its next batch, if it is idle and there is one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._busy or not self._queue:
            return
        first = self._queue[0]
        batch: list[_Waiting] = []
        others: list[_Waiting] = []
        while self._queue and len(batch) < self.max_batch:
            waiting = self._queue.popleft()
            (batch if waiting.ask.joins(first.ask) else others).append(waiting)
        self._queue.extendleft(reversed(others))
        self._busy = True
        self._work.put(partial(self._pass, batch, self._started()))

    def _done(self, batch: list[_Waiting], results: Sequence[Result], seconds: float) -> None:
        """Hand out the results of a pass, and begin or await the next."""
        self._busy = False
        if self._observe is not None:
            self._observe(len(batch), seconds)
        for waiting, result in zip(batch, results, strict=True):
            self._settle(waiting, result)
        if not self._queue or self._loop is None:
            return
        wait = self._queue[0].since + self.max_wait - self._loop.time()
        if wait <= 0 or len(self._queue) >= self.max_batch:
            self._next()
        else:
            self._timer = self._loop.call_later(wait, self._next)

    def _work_off(self) -> None:
        """Do one job after another; the thread's own function."""
        while (job := self._work.get()) is not None:
            job()

    def _pass(self, batch: list[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        """Answer a batch, in the thread."""
        begun = time.perf_counter()
        results = self._results([waiting.ask for waiting in batch])
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(self._done, batch, results, time.perf_counter() - begun)

    def _results(self, asks: Sequence[Ask]) -> Sequence[Result]:
        """Answer a batch; where that fails, each question alone, so that one spoils no other's answer."""
        try:
            answers = self._answer(asks)
            if len(answers) != len(asks):
                raise RuntimeError(f"{len(answers)} answers to {len(asks)} questions")  # noqa: TRY301
        except Exception as error:  # whatever it is belongs to the request, not to the thread
            return [error] if len(asks) == 1 else [self._results([ask])[0] for ask in asks]
        return answers

    def _give_up(self, waiting: _Waiting, timeout: float) -> None:
        self._forget(waiting)
        self._settle(waiting, RefusedError(504, f"no answer within {timeout:g} s; come again", "timeout"))

    def _forget(self, waiting: _Waiting) -> None:
        with suppress(ValueError):  # it is being answered, or was
            self._queue.remove(waiting)

    @staticmethod
    def _settle(waiting: _Waiting, result: Result) -> None:
        if waiting.future.done():
            return
        if isinstance(result, Exception):
            waiting.future.set_exception(result)
        else:
            waiting.future.set_result(result)
