"""When requests are answered, and with whom: nothing waits without need, nothing is lost, nobody spoils another's."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from g2r_lightning.inference.responder import Reply
from g2r_lightning.inference.server.answering import Answer, Ask
from g2r_lightning.inference.server.batching import Batcher
from g2r_lightning.inference.server.refusals import RefusedError


def ask(text: str, k: int = 1) -> Ask:
    return Ask((text,), k)


class Student:
    """Says what it was asked; works only while the gate is open, and remembers its passes."""

    def __init__(self, shut: bool = False) -> None:
        self.gate = threading.Event()
        self.passes: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        if not shut:
            self.gate.set()

    def __call__(self, asks: Sequence[Ask]) -> list[Answer]:
        self.passes.append([one.context[0] for one in asks])
        self.begun.release()
        assert self.gate.wait(30)
        if any("poison" in one.context[0] for one in asks):
            raise ValueError("poisoned")
        return [Answer([Reply(one.context[0], float(one.k), "original")]) for one in asks]

    async def at_work(self) -> None:
        """Wait until a pass has begun."""
        await asyncio.get_running_loop().run_in_executor(None, self.begun.acquire)


def batcher(student: Student, **changes: object) -> Batcher:
    settings = {"max_batch": 4, "max_wait_ms": 0.0, "max_queue": 100, **changes}
    return Batcher(student, **settings)


async def said(batches: Batcher, *questions: Ask, timeout: float = 30.0) -> list[object]:
    answers = await asyncio.gather(*(batches.submit(one, timeout) for one in questions), return_exceptions=True)
    return [one.replies[0].text if isinstance(one, Answer) else one for one in answers]


def test_a_lone_request_is_answered_at_once_and_those_that_find_it_busy_go_together():
    async def scene() -> Student:
        student = Student(shut=True)
        batches = batcher(student)
        first = asyncio.create_task(said(batches, ask("a")))
        await student.at_work()
        rest = asyncio.create_task(said(batches, *map(ask, "bcdefg")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(batches) == 6
        student.gate.set()
        assert await first == ["a"]
        assert await rest == list("bcdefg")
        batches.close()
        return student

    assert asyncio.run(scene()).passes == [["a"], ["b", "c", "d", "e"], ["f", "g"]]


def test_a_lone_client_never_waits_for_others():
    async def scene() -> float:
        batches = batcher(Student(), max_wait_ms=60_000.0)
        begun = time.perf_counter()
        for _ in range(20):
            await batches.submit(ask("a"), 30)
        batches.close()
        return time.perf_counter() - begun

    assert asyncio.run(scene()) < 30


def test_those_that_found_it_busy_wait_for_more_until_the_batch_is_full():
    async def scene() -> Student:
        student = Student(shut=True)
        batches = batcher(student, max_wait_ms=60_000.0)
        first = asyncio.create_task(said(batches, ask("a")))
        await student.at_work()
        second = asyncio.create_task(said(batches, ask("b"), ask("c")))
        await asyncio.sleep(0.01)
        student.gate.set()
        await first
        assert not second.done()  # the student is idle, but the two may be joined by others for a minute
        third = asyncio.create_task(said(batches, ask("d"), ask("e")))
        assert await second == ["b", "c"]
        assert await third == ["d", "e"]
        batches.close()
        return student

    assert asyncio.run(scene()).passes == [["a"], ["b", "c", "d", "e"]]


def test_those_that_found_it_busy_wait_no_longer_than_they_should():
    async def scene() -> Student:
        student = Student(shut=True)
        batches = batcher(student, max_wait_ms=20.0)
        first = asyncio.create_task(said(batches, ask("a")))
        await student.at_work()
        second = asyncio.create_task(said(batches, ask("b")))
        await asyncio.sleep(0)
        student.gate.set()
        assert await asyncio.gather(first, second) == [["a"], ["b"]]
        batches.close()
        return student

    assert asyncio.run(scene()).passes == [["a"], ["b"]]


def test_only_requests_for_as_many_replies_share_a_pass_and_the_oldest_goes_first():
    async def scene() -> Student:
        student = Student(shut=True)
        batches = batcher(student)
        first = asyncio.create_task(said(batches, ask("a")))
        await student.at_work()
        rest = asyncio.create_task(said(batches, ask("b", 5), ask("c", 1), ask("d", 5), ask("e", 1), ask("f", 5)))
        await asyncio.sleep(0.01)
        student.gate.set()
        await first
        assert await rest == list("bcdef")
        batches.close()
        return student

    assert asyncio.run(scene()).passes == [["a"], ["b", "d", "f"], ["c", "e"]]


def test_one_that_fails_spoils_no_other():
    async def scene() -> list[object]:
        student = Student(shut=True)
        batches = batcher(student)
        first = asyncio.create_task(said(batches, ask("a")))
        await student.at_work()
        rest = asyncio.create_task(said(batches, ask("b"), ask("poison"), ask("c")))
        await asyncio.sleep(0.01)
        student.gate.set()
        await first
        found = await rest
        assert await said(batches, ask("d")) == ["d"]  # and the thread goes on
        batches.close()
        return found

    before, poisoned, after = asyncio.run(scene())
    assert (before, after) == ("b", "c")
    assert isinstance(poisoned, ValueError)


def test_too_many_too_late_and_too_slow_are_told_so():
    async def scene() -> None:
        student = Student(shut=True)
        batches = batcher(student, max_queue=2)
        first = asyncio.create_task(said(batches, ask("a")))
        await student.at_work()
        late = asyncio.create_task(said(batches, ask("b"), timeout=0.02))
        patient = asyncio.create_task(said(batches, ask("c")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="too many requests are waiting") as full:
            await batches.submit(ask("d"), 30)
        assert (full.value.status, full.value.headers) == (503, {"retry-after": "1"})
        (slow,) = await late
        assert isinstance(slow, RefusedError)
        assert (slow.status, slow.message) == (504, "no answer within 0.02 s; come again")
        assert len(batches) == 1  # what was given up is not answered
        student.gate.set()
        assert await asyncio.gather(first, patient) == [["a"], ["c"]]
        assert student.passes == [["a"], ["c"]]
        batches.close()
        with pytest.raises(RefusedError, match="the server is stopping"):
            await batches.submit(ask("e"), 30)

    asyncio.run(scene())


def test_a_client_that_goes_away_leaves_the_queue_and_closing_ends_what_waits():
    async def scene() -> None:
        student = Student(shut=True)
        batches = batcher(student)
        first = asyncio.create_task(batches.submit(ask("a"), 30))
        await student.at_work()
        gone = asyncio.create_task(batches.submit(ask("b"), 30))
        waits = asyncio.create_task(batches.submit(ask("c"), 30))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert len(batches) == 1
        batches.close()
        with pytest.raises(RefusedError, match="stopping"):
            await waits
        student.gate.set()
        assert (await first).replies[0].text == "a"  # what runs is finished
        assert student.passes == [["a"]]

    asyncio.run(scene())


def test_every_request_of_a_crowd_gets_its_own_answer():
    async def scene() -> list[int]:
        sizes: list[int] = []
        student = Student()
        batches = Batcher(student, 8, 0.5, 1000, lambda size, _: sizes.append(size))

        async def client(number: int) -> None:
            for turn in range(10):
                text = f"{number}:{turn}"
                answer = await batches.submit(ask(text, 1 + number % 2), 30)
                assert answer.replies == [Reply(text, 1.0 + number % 2, "original")]

        await asyncio.gather(*map(client, range(40)))
        batches.close()
        return sizes

    sizes = asyncio.run(scene())
    assert sum(sizes) == 400
    assert max(sizes) == 8


def test_jobs_of_the_thread_report():
    async def scene() -> None:
        batches = batcher(Student())
        names: list[str] = []
        await batches.run(lambda: names.append(threading.current_thread().name))
        assert names == ["student"]
        with pytest.raises(ZeroDivisionError):
            await batches.run(lambda: 1 // 0)
        batches.close()

    asyncio.run(scene())
