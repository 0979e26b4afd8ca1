"""Requests that leave, come too late, or find no place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from service.api.scope import Disconnect
from service.errors import ClientDisconnected, DeadlineExceeded, Overloaded
from service.scheduling.flight import Waiter
from service.scheduling.job import Job
from service.telemetry.timing import Stopwatch
from tests.service.harness import Harness, body_of, keep, until

pytestmark = pytest.mark.anyio


async def test_a_cancelled_leader_does_not_fail_its_followers(harness: Harness) -> None:
    harness.session.gate.clear()
    leader = harness.begin(body_of(0))
    await until(lambda: harness.session.inside == 1)
    follower = harness.begin(body_of(0))
    await until(lambda: harness.count("unihead_cache_requests_total", result="coalesced") == 1)
    leader.cancel()
    harness.session.gate.set()
    _, result = await follower
    assert (result, harness.passes) == ("coalesced", 1.0)


async def test_a_queued_picture_goes_on_for_the_follower_when_its_leader_leaves(build: Callable[..., Harness]) -> None:
    harness = build(workers=1)
    harness.session.gate.clear()
    busy = harness.begin(body_of(0))
    await until(lambda: harness.session.inside == 1)
    leader, follower = harness.begin(body_of(1)), harness.begin(body_of(1))
    await until(lambda: harness.admission.waiting == 1)
    leader.cancel()
    harness.session.gate.set()
    assert (await follower)[1] == "coalesced"
    await busy


async def test_a_picture_that_nobody_waits_for_gives_its_place_back_and_costs_no_pass(
    build: Callable[..., Harness],
) -> None:
    harness = build(workers=1)
    harness.session.gate.clear()
    busy = harness.begin(body_of(0))
    await until(lambda: harness.session.inside == 1)
    gone = [harness.begin(body_of(1)), harness.begin(body_of(1)), harness.begin(body_of(2))]
    await until(lambda: harness.admission.waiting == 2)
    for task in gone:
        task.cancel()
    await until(lambda: harness.admission.waiting == 0)
    harness.session.gate.set()
    await busy
    assert (harness.passes, harness.count("unihead_dropped_images_total")) == (1.0, 2.0)
    assert (await harness.ask(body_of(1)))[1] == "miss"  # a place of its own, not that of those who left


async def test_a_client_that_hangs_up_is_dropped(build: Callable[..., Harness]) -> None:
    harness = build(workers=1)
    harness.session.gate.clear()
    busy = harness.begin(body_of(0))
    await until(lambda: harness.session.inside == 1)
    connection = Disconnect()
    job = Job(body_of(1), keep, Stopwatch(), timeout_s=10, on_disconnect=connection.listen)
    task = asyncio.create_task(harness.scheduler.submit(job))
    await until(lambda: harness.admission.waiting == 1)
    connection.tell()
    with pytest.raises(ClientDisconnected):
        await task
    assert harness.admission.waiting == 0
    harness.session.gate.set()
    await busy
    assert harness.passes == 1.0


async def test_what_is_late_is_told_at_its_deadline_and_dropped(build: Callable[..., Harness]) -> None:
    harness = build(workers=1)
    harness.session.gate.clear()
    busy = harness.begin(body_of(0))
    await until(lambda: harness.session.inside == 1)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="may allow more time"):
        await harness.ask(body_of(1), timeout_s=0.05)
    assert 0.05 <= time.monotonic() - started < 5
    harness.session.gate.set()
    await busy
    assert harness.passes == 1.0


async def test_what_is_late_is_not_worked_on_even_before_the_event_loop_has_told_it() -> None:
    now, loop = time.monotonic(), asyncio.get_running_loop()
    late, early, left = (
        Waiter(now + patience_s, loop.create_future(), keep, Stopwatch()) for patience_s in (-1, 60, 60)
    )
    left.future.cancel()
    assert [one.is_waiting() for one in (late, early, left)] == [False, True, False]


async def test_a_follower_keeps_its_own_deadline(harness: Harness) -> None:
    harness.session.gate.clear()
    patient = harness.begin(body_of(0))
    await until(lambda: harness.session.inside == 1)
    with pytest.raises(DeadlineExceeded):
        await harness.ask(body_of(0), timeout_s=0.05)
    harness.session.gate.set()
    assert (await patient)[1] == "miss"


async def test_a_full_queue_refuses_the_next_picture_but_no_follower(build: Callable[..., Harness]) -> None:
    harness = build(workers=1, queue_limit=2)
    harness.session.gate.clear()
    pending = [harness.begin(body_of(0))]
    await until(lambda: harness.session.inside == 1)
    pending += [harness.begin(body_of(1)), harness.begin(body_of(2))]
    await until(lambda: harness.admission.waiting == 2)
    with pytest.raises(Overloaded) as refused:
        await harness.ask(body_of(3))
    assert (refused.value.reason, refused.value.retry_after_s) == ("queue_full", 1)
    assert harness.count("unihead_refused_requests_total", reason="queue_full") == 1.0
    pending.append(harness.begin(body_of(2)))
    await until(lambda: harness.count("unihead_cache_requests_total", result="coalesced") == 1)
    harness.session.gate.set()
    assert [result for _, result in await asyncio.gather(*pending)] == ["miss", "miss", "miss", "coalesced"]
