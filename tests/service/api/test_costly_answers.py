"""Answers that take as long to make as a pass: they wait in the queue, and nobody waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from service.engine.postprocess import Answer
from service.errors import DeadlineExceeded, NotReady, Overloaded
from service.scheduling.job import Effort
from service.telemetry.timing import Stopwatch
from tests.service.harness import Harness, body_of, keep, until

pytestmark = pytest.mark.anyio


class Drawing:
    """Makes an answer once it may; tells how many are at it."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.begun = 0

    def __call__(self, answer: Answer, watch: Stopwatch) -> Answer:
        self.begun += 1
        assert self.may_end.wait(10)
        return keep(answer, watch)


async def test_one_about_a_known_picture_takes_a_place_in_the_queue_and_no_pass(build: Callable[..., Harness]) -> None:
    """Else who asks for the same drawing again and again would have all CPUs, with the queue empty."""
    harness = build(queue_limit=1, workers=1)
    await harness.ask(body_of(0))
    harness.session.gate.clear()
    other = harness.begin(body_of(1))
    await until(lambda: harness.session.inside == 1)
    drawn = harness.begin(body_of(0), effort="pass")
    await until(lambda: harness.admission.waiting == 1)
    with pytest.raises(Overloaded):
        await harness.ask(body_of(0), effort="pass")
    assert harness.count("unihead_refused_requests_total", reason="queue_full") == 1.0
    assert (await harness.ask(body_of(0)))[1] == "hit"
    harness.session.gate.set()
    assert (await drawn)[1] == "hit"
    await other
    assert harness.passes == 2.0
    await until(lambda: (harness.admission.waiting, harness.admission.active) == (0, 0))


async def test_those_that_joined_are_made_beside_each_other_after_those_that_are_cheap(
    build: Callable[..., Harness],
) -> None:
    harness, drawing = build(workers=2), Drawing()
    harness.session.gate.clear()
    drawn = [harness.begin(body_of(0), drawing, effort="pass")]
    await until(lambda: harness.session.inside == 1)
    drawn += [harness.begin(body_of(0), drawing, effort="pass") for _ in range(2)]
    cheap = harness.begin(body_of(0))
    await until(lambda: harness.count("unihead_cache_requests_total", result="coalesced") == 3)
    harness.session.gate.set()
    await cheap
    await until(lambda: drawing.begun == 2 and harness.admission.waiting == 1)
    drawing.may_end.set()
    assert [result for _, result in await asyncio.gather(*drawn)] == ["miss", "coalesced", "coalesced"]
    assert harness.passes == 1.0


async def test_one_that_joined_is_refused_where_the_queue_has_filled_meanwhile(build: Callable[..., Harness]) -> None:
    harness, drawing = build(queue_limit=1, workers=1), Drawing()
    harness.session.gate.clear()
    first = harness.begin(body_of(0), drawing, effort="pass")
    await until(lambda: harness.session.inside == 1)
    second = harness.begin(body_of(0), effort="pass")
    queued = harness.begin(body_of(1))
    await until(lambda: harness.admission.waiting == 1)
    harness.session.gate.set()
    with pytest.raises(Overloaded):
        await second
    drawing.may_end.set()
    assert [result for _, result in await asyncio.gather(first, queued)] == ["miss", "miss"]


async def test_who_leaves_the_queue_gives_the_place_back(build: Callable[..., Harness]) -> None:
    harness = build(queue_limit=1, workers=1)
    await harness.ask(body_of(0))
    harness.session.gate.clear()
    other = harness.begin(body_of(1))
    await until(lambda: harness.session.inside == 1)
    drawn = harness.begin(body_of(0), effort="pass")
    await until(lambda: harness.admission.waiting == 1)
    drawn.cancel()
    await until(lambda: harness.admission.waiting == 0)
    with pytest.raises(DeadlineExceeded):
        await harness.ask(body_of(0), effort="pass", timeout_s=0.05)
    harness.session.gate.set()
    await other


@pytest.mark.parametrize(("effort", "here"), [("little", True), ("some", False), ("pass", False)])
async def test_of_a_known_picture_an_answer_of_little_effort_changes_no_thread(
    harness: Harness, effort: Effort, here: bool
) -> None:
    threads: list[threading.Thread] = []

    def finish(answer: Answer, watch: Stopwatch) -> Answer:
        threads.append(threading.current_thread())
        return keep(answer, watch)

    assert [(await harness.ask(body_of(0), finish, effort=effort))[1] for _ in range(2)] == ["miss", "hit"]
    assert [thread is threading.main_thread() for thread in threads] == [False, here]


async def test_an_answer_of_little_effort_that_fails_fails_its_request(harness: Harness) -> None:
    await harness.ask(body_of(0))

    def fail(answer: Answer, watch: Stopwatch) -> Answer:
        del answer, watch
        raise ValueError("no answer")

    with pytest.raises(ValueError, match="no answer"):
        await harness.ask(body_of(0), fail, effort="little")


async def test_the_shadow_sees_a_picture_once_a_pass(harness: Harness) -> None:
    seen: list[bytes] = []
    harness.scheduler.after_pass = seen.append
    efforts: tuple[Effort, ...] = ("little", "pass", "pass", "some", "little")
    for effort in efforts:
        await harness.ask(body_of(0), effort=effort)
    await harness.ask(body_of(1), effort="pass")
    await until(lambda: harness.admission.active == 0)
    assert seen == [body_of(0), body_of(1)]


async def test_one_that_joined_is_not_begun_when_the_service_stops(build: Callable[..., Harness]) -> None:
    harness = build(workers=1)
    harness.session.gate.clear()
    first = harness.begin(body_of(0))
    await until(lambda: harness.session.inside == 1)
    second = harness.begin(body_of(0), effort="pass")
    await until(lambda: harness.count("unihead_cache_requests_total", result="coalesced") == 1)
    stopping = asyncio.create_task(harness.scheduler.stop())
    await asyncio.sleep(0)
    harness.session.gate.set()
    assert (await first)[1] == "miss"
    with pytest.raises(NotReady):
        await second
    await stopping
