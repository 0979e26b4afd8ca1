"""Requests that leave, come too late, or find no place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from service.api.scope import Disconnect
from service.errors import ClientGone, DeadlineExceeded, Overloaded
from service.scheduling.flight import Passenger
from service.telemetry.timing import Stopwatch
from tests.service.house import House, body_of, keep, until

pytestmark = pytest.mark.anyio


async def test_a_cancelled_leader_does_not_fail_its_followers(house: House) -> None:
    house.session.gate.clear()
    leader = house.begin(body_of(0))
    await until(lambda: house.session.inside == 1)
    follower = house.begin(body_of(0))
    await until(lambda: house.count("unihead_cache_requests_total", result="coalesced") == 1)
    leader.cancel()
    house.session.gate.set()
    _, result = await follower
    assert (result, house.passes) == ("coalesced", 1.0)


async def test_a_queued_picture_goes_on_for_the_follower_when_its_leader_leaves(build: Callable[..., House]) -> None:
    house = build(workers=1)
    house.session.gate.clear()
    busy = house.begin(body_of(0))
    await until(lambda: house.session.inside == 1)
    leader, follower = house.begin(body_of(1)), house.begin(body_of(1))
    await until(lambda: house.admission.waiting == 1)
    leader.cancel()
    house.session.gate.set()
    assert (await follower)[1] == "coalesced"
    await busy


async def test_a_picture_that_nobody_waits_for_gives_its_place_back_and_costs_no_pass(
    build: Callable[..., House],
) -> None:
    house = build(workers=1)
    house.session.gate.clear()
    busy = house.begin(body_of(0))
    await until(lambda: house.session.inside == 1)
    gone = [house.begin(body_of(1)), house.begin(body_of(1)), house.begin(body_of(2))]
    await until(lambda: house.admission.waiting == 2)
    for task in gone:
        task.cancel()
    await until(lambda: house.admission.waiting == 0)
    house.session.gate.set()
    await busy
    assert (house.passes, house.count("unihead_dropped_images_total")) == (1.0, 2.0)
    assert (await house.ask(body_of(1)))[1] == "miss"  # a place of its own, not that of those who left


async def test_a_client_that_hangs_up_is_dropped(build: Callable[..., House]) -> None:
    house = build(workers=1)
    house.session.gate.clear()
    busy = house.begin(body_of(0))
    await until(lambda: house.session.inside == 1)
    connection = Disconnect()
    task = asyncio.create_task(
        house.scheduler.submit(body_of(1), keep, watch=Stopwatch(), timeout_s=10, hang_up=connection.listen)
    )
    await until(lambda: house.admission.waiting == 1)
    connection.tell()
    with pytest.raises(ClientGone):
        await task
    assert house.admission.waiting == 0
    house.session.gate.set()
    await busy
    assert house.passes == 1.0


async def test_what_is_late_is_told_at_its_deadline_and_dropped(build: Callable[..., House]) -> None:
    house = build(workers=1)
    house.session.gate.clear()
    busy = house.begin(body_of(0))
    await until(lambda: house.session.inside == 1)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="X-Request-Timeout-Ms"):
        await house.ask(body_of(1), timeout_s=0.05)
    assert 0.05 <= time.monotonic() - started < 5
    house.session.gate.set()
    await busy
    assert house.passes == 1.0


async def test_what_is_late_is_not_worked_on_even_before_the_event_loop_has_told_it() -> None:
    now, loop = time.monotonic(), asyncio.get_running_loop()
    late, early, left = (
        Passenger(keep, Stopwatch(), now + patience_s, loop.create_future()) for patience_s in (-1, 60, 60)
    )
    left.future.cancel()
    assert [one.is_waiting() for one in (late, early, left)] == [False, True, False]


async def test_a_follower_keeps_its_own_deadline(house: House) -> None:
    house.session.gate.clear()
    patient = house.begin(body_of(0))
    await until(lambda: house.session.inside == 1)
    with pytest.raises(DeadlineExceeded):
        await house.ask(body_of(0), timeout_s=0.05)
    house.session.gate.set()
    assert (await patient)[1] == "miss"


async def test_a_full_queue_refuses_the_next_picture_but_no_follower(build: Callable[..., House]) -> None:
    house = build(workers=1, queue_limit=2)
    house.session.gate.clear()
    pending = [house.begin(body_of(0))]
    await until(lambda: house.session.inside == 1)
    pending += [house.begin(body_of(1)), house.begin(body_of(2))]
    await until(lambda: house.admission.waiting == 2)
    with pytest.raises(Overloaded) as refused:
        await house.ask(body_of(3))
    assert (refused.value.reason, refused.value.retry_after_s) == ("queue_full", 1)
    assert house.count("unihead_refused_requests_total", reason="queue_full") == 1.0
    pending.append(house.begin(body_of(2)))
    await until(lambda: house.count("unihead_cache_requests_total", result="coalesced") == 1)
    house.session.gate.set()
    assert [result for _, result in await asyncio.gather(*pending)] == ["miss", "miss", "miss", "coalesced"]
