from __future__ import annotations

import asyncio
from typing import cast

import pytest

from service.memory import MemoryBudget
from service.server.closing import LingeringTransport, compute_linger_deadline

KIB = 1024
MIB = 1024 * KIB


class FakeStream:
    def __init__(self) -> None:
        self.unsent = 0
        self.said: list[str] = []

    def writelines(self, pieces: list[bytes]) -> None:
        self.said.append(b"".join(pieces).decode())

    def close(self) -> None:
        self.said.append("close")

    def write_eof(self) -> None:
        self.said.append("end")

    def is_closing(self) -> bool:
        return "abort" in self.said

    def abort(self) -> None:
        self.said.append("abort")

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str) -> None:
        """There is no socket, and so no system that could tell more."""


def make(memory: MemoryBudget | None = None) -> tuple[FakeStream, LingeringTransport]:
    stream, unsent = FakeStream(), (memory or MemoryBudget(2**20)).hold("answers")
    return stream, LingeringTransport(
        cast("asyncio.Transport", stream), 10, lambda: stream.said.append("wait for the client"), unsent
    )


@pytest.mark.anyio
async def test_head_and_body_leave_together_and_a_head_alone_at_the_end_of_the_turn() -> None:
    stream, transport = make()
    for piece in (b"head ", b"body", b"head alone"):
        transport.write(piece)
    assert stream.said == ["head body"]
    await asyncio.sleep(0)
    assert stream.said == ["head body", "head alone"]


@pytest.mark.anyio
@pytest.mark.parametrize(("end", "said"), [("close", "end"), ("close_at_once", "close")])
async def test_nothing_that_was_written_is_lost_at_the_end(end: str, said: str) -> None:
    stream, transport = make()
    transport.write(b"answer")
    getattr(transport, end)()
    assert stream.said[:2] == ["answer", said]


@pytest.mark.anyio
async def test_nothing_is_written_to_a_client_that_has_disconnected() -> None:
    stream, transport = make()
    transport.write(b"answer")
    stream.abort()
    await asyncio.sleep(0)
    assert stream.said == ["abort"]


@pytest.mark.anyio
async def test_closing_says_so_once_and_waits_for_the_client() -> None:
    stream, transport = make()
    transport.write(b"answer")
    assert not transport.is_closing()
    transport.close()
    transport.close()
    assert transport.is_closing()
    assert stream.said == ["answer", "end", "wait for the client"]


@pytest.mark.anyio
async def test_what_is_unsent_of_an_answer_is_counted_until_it_is_written() -> None:
    memory = MemoryBudget(100 * MIB)
    stream, transport = make(memory)
    stream.unsent = 30 * MIB
    transport.write(b"head")
    transport.write(b"body")
    assert memory.taken["answers"] == 30 * MIB
    for unsent, counted in ((20 * MIB, 20 * MIB), (65 * KIB, 65 * KIB), (64 * KIB, 0), (0, 0)):
        stream.unsent = unsent
        transport.sweep(0)
        assert memory.taken["answers"] == counted


def cut_off_at(*unsent_by_second: int) -> int | None:
    """The second at which a connection is given up whose unsent bytes are these."""
    stream, transport = make()
    for second, unsent in enumerate(unsent_by_second):
        transport._held = [bytes(max(0, unsent - stream.unsent))]
        transport.flush()
        stream.unsent = unsent
        transport.sweep(second)
        if "abort" in stream.said:
            return second
    return None


def test_who_takes_nothing_is_cut_off_in_time() -> None:
    assert cut_off_at(0, 0, *[MIB] * 30) == 12


def test_who_takes_a_little_now_and_then_is_cut_off_as_soon() -> None:
    assert cut_off_at(*[MIB - KIB * second for second in range(30)]) == 12


def test_asking_for_more_wins_no_time() -> None:
    assert cut_off_at(*[MIB + MIB * second for second in range(30)]) == 10


def test_who_takes_enough_is_waited_for() -> None:
    assert cut_off_at(*[MIB - 8 * KIB * second for second in range(129)]) is None


def test_who_takes_it_in_large_steps_is_waited_for_until_the_promised_rate_would_be_there() -> None:
    """As a system with a large buffer does: a megabyte at once, then nothing for as long as that takes at the rate."""
    steps = [4 * MIB] * 10 + [3 * MIB] * 160 + [2 * MIB] * 160 + [MIB] * 160
    assert cut_off_at(*steps) is None
    assert cut_off_at(*[4 * MIB] * 9, *[3 * MIB] * 1000) == 9 + 10 + 160 - 9


def test_what_is_taken_before_anybody_looks_counts() -> None:
    """Four megabytes into the buffers of the two systems; then nothing, until the client's has room again."""
    stream, transport = make()
    transport._held = [bytes(5 * MIB)]
    transport.flush()
    stream.unsent = 4 * MIB
    for second in range(200):
        transport.sweep(second)
        if "abort" in stream.said:
            break
    assert second == 10 + 160


def test_who_has_taken_much_at_once_rests_for_a_bounded_time_all_the_same() -> None:
    assert cut_off_at(*[100 * MIB] * 2, *[MIB] * 1000) == 2 + 320


def test_what_is_answered_meanwhile_costs_nobody_its_time() -> None:
    """A kept connection whose newest answer is always under way, as over a satellite."""
    stream, transport = make()
    for second in range(100):
        transport._held = [bytes(500)]  # and what was written before has been taken
        transport.flush()
        stream.unsent = 500
        transport.sweep(second)
    assert "abort" not in stream.said


def test_the_rest_of_an_answer_may_be_less_than_that() -> None:
    assert cut_off_at(*[KIB] * 9, 0, *[KIB] * 9, 0) is None


def test_so_much_may_come_after_the_answer() -> None:
    stream, transport = make()
    transport.discard(64 * MIB)
    assert stream.said == []
    transport.discard(1)
    assert stream.said == ["abort"]


def test_a_kept_connection_may_send_as_much_after_each_answer() -> None:
    stream, transport = make()
    for _ in range(3):
        transport.begin_discarding()
        transport.discard(60 * MIB)
    assert stream.said == []


@pytest.mark.parametrize(
    ("body_deadline", "is_shutting_down", "until"),
    [
        (200.0, False, 105.0),  # no longer than this, though its body might take longer
        (102.0, False, 102.0),
        (90.0, False, 100.5),  # its time is over, and it still has to read why
        (200.0, True, 101.0),
        (90.0, True, 100.5),
    ],
)
def test_who_goes_on_sending_is_listened_to_for_a_bounded_time(
    body_deadline: float, is_shutting_down: bool, until: float
) -> None:
    assert compute_linger_deadline(100.0, body_deadline, is_shutting_down=is_shutting_down) == until
