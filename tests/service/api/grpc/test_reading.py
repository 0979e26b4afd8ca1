from __future__ import annotations

import asyncio

import pytest

from service.api.grpc.reading import Reading
from service.errors import Overloaded, RequestTimeout
from service.memory import MemoryBudget, Share

pytestmark = pytest.mark.anyio

MOST = 1000


class Message:
    """One that comes when the test says so."""

    def __init__(self) -> None:
        self.bytes: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self.is_awaited = False

    async def receive(self) -> bytes | None:
        self.is_awaited = True
        return await self.bytes


def make_reading(memory: MemoryBudget, *, timeout_s: float = 10, patience_s: float = 10) -> Reading:
    return Reading(memory, most_bytes=MOST, timeout_s=timeout_s, patience_s=patience_s)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("limit", "places"), [(4 * MOST, 1), (40 * MOST, 10), (100_000 * MOST, 64)])
async def test_places_are_a_half_of_what_bodies_may_have(limit: int, places: int) -> None:
    assert make_reading(MemoryBudget(limit)).places == places


async def test_a_message_counts_as_the_longest_while_it_comes_and_as_itself_then() -> None:
    memory, message = MemoryBudget(40 * MOST), Message()
    with memory.open() as share:
        reading = asyncio.ensure_future(make_reading(memory).read(message.receive, share))
        await settle()
        assert memory.taken["bodies"] == MOST
        message.bytes.set_result(b"x" * 30)
        assert await reading == b"x" * 30
        assert memory.taken["bodies"] == 30
    assert memory.taken["bodies"] == 0


async def test_one_that_has_no_place_is_not_received_yet() -> None:
    memory, first, second = MemoryBudget(4 * MOST), Message(), Message()
    reading = make_reading(memory)
    one = asyncio.ensure_future(reading.read(first.receive, Share(memory)))
    two = asyncio.ensure_future(reading.read(second.receive, Share(memory)))
    await settle()
    assert (first.is_awaited, second.is_awaited) == (True, False)
    first.bytes.set_result(None)
    await settle()
    assert second.is_awaited
    second.bytes.set_result(b"")
    assert (await one, await two) == (None, b"")
    assert memory.taken["bodies"] == 0


async def test_one_that_is_slow_makes_room_where_another_waits() -> None:
    memory, slow, quick = MemoryBudget(4 * MOST), Message(), Message()
    reading = make_reading(memory, patience_s=0.02)
    one = asyncio.ensure_future(reading.read(slow.receive, Share(memory)))
    await asyncio.sleep(0.05)
    assert not one.done(), "nobody waits"
    quick.bytes.set_result(b"here")
    assert await reading.read(quick.receive, Share(memory)) == b"here"
    with pytest.raises(RequestTimeout):
        await one


async def test_one_that_begins_while_another_waits_has_no_more_time() -> None:
    memory = MemoryBudget(4 * MOST)
    reading = make_reading(memory, patience_s=0.02)
    tasks = [asyncio.ensure_future(reading.read(Message().receive, Share(memory))) for _ in range(3)]
    done, pending = await asyncio.wait(tasks, timeout=0.3)
    assert (done, pending) == (set(tasks[:2]), set(tasks[2:])), "nobody waits for the place of the last one"
    for task in done:
        assert isinstance(task.exception(), RequestTimeout)
    tasks[2].cancel()


async def test_one_that_does_not_come_ends_in_time_and_leaves_its_place() -> None:
    memory, message = MemoryBudget(4 * MOST), Message()
    reading = make_reading(memory, timeout_s=0.02)
    share = Share(memory)
    with pytest.raises(RequestTimeout):
        await reading.read(message.receive, share)
    assert memory.taken["bodies"] == 0
    message = Message()
    message.bytes.set_result(b"x")
    assert await reading.read(message.receive, share) == b"x"


async def test_one_that_might_not_fit_is_refused() -> None:
    memory = MemoryBudget(4 * MOST)
    other = Share(memory)
    other.take_body(MOST + 1)
    with pytest.raises(Overloaded):
        await make_reading(memory).read(Message().receive, Share(memory))
    assert memory.taken["bodies"] == MOST + 1
