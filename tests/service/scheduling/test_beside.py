"""What a request needs beside its passes has a place in the queue of the pictures, and their deadlines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from service.errors import DeadlineExceeded, MalformedRequest, NotReady, Overloaded
from tests.service.harness import Harness, body_of, until

pytestmark = pytest.mark.anyio


async def test_a_worker_does_it_and_what_it_raises_arrives(harness: Harness) -> None:
    def fail() -> None:
        raise MalformedRequest("as it should")

    assert (await harness.scheduler.errands.run(threading.current_thread, work=0, timeout_s=10)).name == "picture"
    with pytest.raises(MalformedRequest):
        await harness.scheduler.errands.run(fail, work=0, timeout_s=10)
    await until(lambda: harness.admission.active == 0)
    assert harness.admission.waiting == 0


async def test_it_waits_behind_pictures_and_is_refused_where_the_queue_is_full(build: Callable[..., Harness]) -> None:
    harness = build(queue_limit=1, workers=1)
    harness.session.gate.clear()
    first = harness.begin(body_of(1))
    await until(lambda: harness.admission.active == 1)
    waiting = asyncio.ensure_future(harness.scheduler.errands.run(lambda: "done", work=0, timeout_s=10))
    await until(lambda: harness.admission.waiting == 1)
    with pytest.raises(Overloaded):
        await harness.scheduler.errands.run(lambda: "never", work=0, timeout_s=10)
    again = asyncio.ensure_future(harness.scheduler.errands.run(lambda: "again", work=0, timeout_s=10, again=True))
    await until(lambda: harness.admission.waiting == 2)
    harness.session.gate.set()
    assert [await waiting, await again] == ["done", "again"]
    await first
    await until(lambda: harness.admission.active == 0)


async def test_it_has_a_deadline_and_gives_its_place_back(build: Callable[..., Harness]) -> None:
    harness = build(workers=1)
    harness.session.gate.clear()
    first = harness.begin(body_of(1))
    await until(lambda: harness.admission.active == 1)
    done: list[int] = []
    with pytest.raises(DeadlineExceeded):
        await harness.scheduler.errands.run(lambda: done.append(1), work=0, timeout_s=0.01)
    assert harness.admission.waiting == 0
    harness.session.gate.set()
    await first
    await harness.scheduler.errands.run(lambda: done.append(2), work=0, timeout_s=10)
    assert done == [2]


async def test_a_service_that_stops_does_nothing_more(harness: Harness) -> None:
    await harness.scheduler.stop()
    with pytest.raises(NotReady):
        await harness.scheduler.errands.run(lambda: None, work=0, timeout_s=10)
