"""Pictures that need more memory than there is, one after the other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from service.engine.postprocess import Answer
from service.errors import DeadlineExceeded, NotReady, Overloaded, TooManyPixels
from service.memory import Use
from service.scheduling.flight import Flight
from service.telemetry.timing import Stopwatch
from tests.service.fakes import encode, make_picture
from tests.service.harness import Harness, body_of, until

pytestmark = pytest.mark.anyio

# More than decoding any of the pictures takes.
NEED = 3 * 2**20
# Of answers, more than is never waited for.
ROOM = 2**20


async def test_as_many_pictures_are_decoded_at_once_as_there_is_memory_for(build: Callable[..., Harness]) -> None:
    harness = build(workers=4, memory_bytes=2 * NEED + 1)
    harness.session.gate.clear()
    tasks = [harness.begin(body_of(seed), making=NEED) for seed in range(5)]
    await until(lambda: harness.session.inside == 2)
    await asyncio.sleep(0.02)
    assert (harness.session.inside, harness.admission.waiting, harness.memory.taken["work"]) == (2, 3, 2 * NEED)
    harness.session.gate.set()
    await asyncio.gather(*tasks)
    assert harness.session.most_inside == 2
    await until(lambda: harness.memory.total() == 0)


async def test_who_shares_a_pass_takes_the_memory_of_one(build: Callable[..., Harness]) -> None:
    harness = build(workers=4, memory_bytes=4 * NEED)
    harness.session.gate.clear()
    tasks = [harness.begin(body_of(0), making=NEED) for _ in range(6)]
    await until(lambda: harness.count("unihead_cache_requests_total", result="coalesced") == 5)
    await until(lambda: harness.session.inside == 1)
    assert harness.memory.taken["work"] == NEED
    harness.session.gate.set()
    await asyncio.gather(*tasks)
    await until(lambda: harness.memory.total() == 0)


async def test_a_picture_that_does_not_fit_waits_until_its_deadline(build: Callable[..., Harness]) -> None:
    harness = build(workers=2, memory_bytes=2 * NEED)
    harness.memory.hold("answers").resize(NEED + 1)
    with pytest.raises(DeadlineExceeded):
        await harness.ask(body_of(0), timeout_s=0.05, making=NEED)
    assert (harness.admission.waiting, harness.passes) == (0, 0.0)


async def test_it_is_worked_on_as_soon_as_a_client_has_read_its_answer(build: Callable[..., Harness]) -> None:
    harness = build(workers=2, memory_bytes=2 * NEED)
    slow = harness.memory.hold("answers")
    slow.resize(NEED + 1)
    waiting = harness.begin(body_of(0), making=NEED)
    await until(lambda: harness.admission.waiting == 1)
    slow.resize(NEED)
    assert (await waiting)[1] == "miss"


async def test_one_that_could_never_fit_is_refused_at_once(build: Callable[..., Harness]) -> None:
    harness = build(memory_bytes=2_200_000)
    with pytest.raises(TooManyPixels, match="MB of memory"):
        await harness.ask(body_of(0))
    with pytest.raises(TooManyPixels):
        await harness.ask(body_of(0), making=2**40)
    assert harness.admission.waiting == 0


async def test_a_picture_that_is_stuck_keeps_its_memory_and_others_pass_by_the_one_that_needs_it(
    build: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = build(workers=1, memory_bytes=3 * NEED)
    monkeypatch.setattr(harness.scheduler._workers, "patience_s", 0.01)
    harness.session.gate.clear()
    stuck = harness.begin(body_of(0), making=2 * NEED)
    await until(lambda: harness.session.inside == 1)
    await until(lambda: harness.count("unihead_stuck_workers") == 1)
    harness.scheduler.relieve_workers()
    large = harness.begin(body_of(1), making=2 * NEED)
    await until(lambda: harness.admission.waiting == 1)
    small = harness.begin(body_of(2), making=NEED)
    await until(lambda: harness.session.inside == 2)
    assert harness.memory.taken["work"] == 3 * NEED
    harness.session.gate.set()
    await asyncio.gather(stuck, small, large)
    await until(lambda: harness.memory.total() == 0)


async def test_what_joins_takes_its_memory_when_its_answer_is_made_and_else_queues_up(
    build: Callable[..., Harness],
) -> None:
    harness = build(workers=1, memory_bytes=4 * ROOM + 8000)
    used: list[dict[Use, int]] = []

    def finish(answer: Answer, _: Stopwatch) -> Answer:
        used.append(dict(harness.memory.taken))
        return answer

    harness.session.gate.clear()
    with harness.memory.open() as one, harness.memory.open() as two:
        one.expect(ROOM)
        two.expect(ROOM)
        tasks = [harness.begin(body_of(0), finish, making=3 * ROOM, share=one)]
        await until(lambda: harness.session.inside == 1)
        tasks.append(harness.begin(body_of(0), finish, making=2 * ROOM, share=two))
        await until(lambda: harness.count("unihead_cache_requests_total", result="coalesced") == 1)
        harness.session.gate.set()
        await tasks[0]
        await until(lambda: harness.admission.waiting == 1)
        assert not tasks[1].done(), "answers may have a quarter"
        one.settle(1000)
        assert [result for _, result in await asyncio.gather(*tasks)] == ["miss", "coalesced"]
    assert [one["work"] for one in used] == [3 * ROOM, 2 * ROOM]
    assert harness.passes == 1.0
    await until(lambda: harness.memory.total() == 0)


async def test_an_answer_from_the_cache_takes_its_memory_too(build: Callable[..., Harness]) -> None:
    harness = build(workers=1, memory_bytes=4 * ROOM)
    await harness.ask(body_of(0))
    used: list[int] = []

    def finish(answer: Answer, _: Stopwatch) -> Answer:
        used.append(harness.memory.taken["work"])
        return answer

    assert (await harness.ask(body_of(0), finish, making=ROOM))[1] == "hit"
    full = harness.memory.hold("work")
    full.resize(4 * ROOM)
    waiting = harness.begin(body_of(0), finish, making=ROOM)
    await until(lambda: harness.admission.waiting == 1)
    full.close()
    assert (await waiting)[1] == "hit"
    assert used == [ROOM, ROOM]
    await until(lambda: harness.memory.total() == 0)


async def test_who_asks_for_an_answer_from_the_cache_does_not_pass_by_those_who_wait_for_memory(
    build: Callable[..., Harness],
) -> None:
    harness = build(workers=2, memory_bytes=2 * NEED)
    await harness.ask(body_of(0))
    harness.session.gate.clear()
    running = harness.begin(body_of(1), making=NEED + 1)
    await until(lambda: harness.session.inside == 1)
    waiting = harness.begin(body_of(2), making=NEED)
    await until(lambda: harness.admission.waiting == 1)
    await until(lambda: harness.scheduler._workers.is_short)
    cached = harness.begin(body_of(0), making=1)
    await until(lambda: harness.admission.waiting == 2)
    harness.session.gate.set()
    assert (await cached)[1] == "hit"
    await asyncio.gather(running, waiting)


async def test_the_body_of_a_picture_is_counted_as_long_as_its_flight_keeps_it(build: Callable[..., Harness]) -> None:
    harness = build(workers=1)
    harness.session.gate.clear()
    body = body_of(0)
    with harness.memory.open() as one:
        one.take_body(len(body) + 100)
        leader = harness.begin(body, share=one)
        await until(lambda: harness.session.inside == 1)
        follower = harness.begin(body)
        await until(lambda: harness.count("unihead_cache_requests_total", result="coalesced") == 1)
        leader.cancel()
        await asyncio.sleep(0)
    assert harness.memory.taken["bodies"] == len(body)
    harness.session.gate.set()
    await follower
    await until(lambda: harness.memory.total() == 0)


async def test_the_body_of_a_picture_that_nobody_waits_for_is_given_back(build: Callable[..., Harness]) -> None:
    harness = build(workers=1)
    harness.session.gate.clear()
    busy = harness.begin(body_of(0))
    await until(lambda: harness.session.inside == 1)
    with harness.memory.open() as share:
        share.take_body(len(body_of(1)))
        queued = harness.begin(body_of(1), share=share)
        await until(lambda: harness.admission.waiting == 1)
        queued.cancel()
        await until(lambda: harness.admission.waiting == 0)
    assert harness.memory.taken["bodies"] == 0
    harness.session.gate.set()
    await busy


@pytest.mark.parametrize("where", ["decoding", "making"])
async def test_a_system_without_memory_is_a_refusal_that_is_counted(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object, **__: object) -> Answer:
        raise MemoryError

    if where == "decoding":
        monkeypatch.setattr("service.scheduling.pipeline.prepare", fail)
    with pytest.raises(Overloaded) as refusal:
        await harness.ask(body_of(0), fail if where == "making" else None)
    assert (refusal.value.reason, refusal.value.retry_after_s) == ("memory", 1)
    assert harness.count("unihead_memory_errors_total") == 1
    await until(lambda: harness.memory.total() == 0)


async def test_an_errand_waits_behind_pictures_and_takes_its_memory(build: Callable[..., Harness]) -> None:
    harness = build(workers=1, memory_bytes=4 * NEED)
    errands, used = harness.scheduler.errands, list[int]()
    harness.session.gate.clear()
    picture = harness.begin(body_of(0))
    await until(lambda: harness.session.inside == 1)
    done = asyncio.create_task(
        errands.run(lambda: used.append(harness.memory.taken["work"]), work=2 * NEED, timeout_s=10)
    )
    await until(lambda: harness.admission.waiting == 1)
    harness.session.gate.set()
    await asyncio.gather(picture, done)
    await until(lambda: harness.admission.active == 0)
    assert (used, harness.memory.total()) == ([2 * NEED], 0)


async def test_an_errand_that_fails_or_is_late_gives_its_place_back(build: Callable[..., Harness]) -> None:
    harness = build(workers=1, memory_bytes=4 * NEED)
    errands, ran = harness.scheduler.errands, list[str]()

    def fail() -> None:
        raise MemoryError

    with pytest.raises(Overloaded):
        await errands.run(fail, work=NEED, timeout_s=10)
    with pytest.raises(TooManyPixels):
        await errands.run(fail, work=2**40, timeout_s=10)
    with pytest.raises(ZeroDivisionError):
        await errands.run(lambda: divmod(1, 0), work=NEED, timeout_s=10)
    harness.session.gate.clear()
    picture = harness.begin(body_of(0))
    await until(lambda: harness.session.inside == 1)
    with pytest.raises(DeadlineExceeded):
        await errands.run(lambda: ran.append("late"), work=NEED, timeout_s=0.02)
    assert harness.admission.waiting == 0
    harness.session.gate.set()
    await picture
    assert not ran


@pytest.mark.parametrize("side", [32, 400])
async def test_after_the_stop_nothing_is_taken_be_it_small_or_large(build: Callable[..., Harness], side: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    harness = build()
    await harness.scheduler.stop()
    with pytest.raises(NotReady):
        await harness.ask(encode(noise))
    with pytest.raises(NotReady):
        await harness.scheduler.errands.run(time.monotonic, work=0, timeout_s=1)


async def test_who_asks_after_the_last_look_at_who_waits_opens_a_flight_of_its_own(
    build: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Joining one that is about to end for want of waiters, it would be told that its deadline is over."""
    harness = build(workers=2)
    looked, may_go_on = threading.Event(), threading.Event()
    look = Flight.close_unless_wanted

    def look_and_wait(flight: Flight) -> bool:
        ended = look(flight)
        if ended:
            looked.set()
            assert may_go_on.wait(10)
        return ended

    monkeypatch.setattr(Flight, "close_unless_wanted", look_and_wait)
    harness.session.gate.clear()
    busy = [harness.begin(body_of(seed)) for seed in (1, 2)]
    await until(lambda: harness.session.inside == 2)
    late = harness.begin(encode(make_picture(seed=3)), timeout_s=0.02)
    await until(lambda: harness.admission.waiting == 1)
    time.sleep(0.03)  # noqa: ASYNC251 - the event loop does not get to telling it
    harness.session.gate.set()
    await asyncio.to_thread(looked.wait, 10)
    punctual = harness.begin(encode(make_picture(seed=3)))
    await asyncio.sleep(0.02)
    may_go_on.set()
    assert (await punctual)[1] == "miss"
    with pytest.raises(DeadlineExceeded):
        await late
    await asyncio.gather(*busy)
