from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from service.errors import MalformedRequest
from service.server.message import IncomingMessage
from service.settings import Settings


@pytest.fixture
def message() -> IncomingMessage:
    return IncomingMessage(Settings(header_timeout_s=1, body_timeout_s=2), now=100)


def test_a_message_goes_from_head_to_body_to_the_next(message: IncomingMessage) -> None:
    phases = [message.phase]
    message.begin(101)
    phases.append(message.phase)
    message.begin_body()
    phases.append(message.phase)
    message.end()
    assert [*phases, message.phase] == ["idle", "head", "body", "idle"]


def test_its_time_begins_with_its_first_byte_and_for_the_first_one_with_the_connection(
    message: IncomingMessage,
) -> None:
    assert (message.head_deadline, message.body_deadline) == (101, 102)
    message.begin(150)
    message.begin_body()
    assert (message.head_deadline, message.body_deadline) == (151, 152)


def test_overhead_is_what_came_since_something_was_complete(message: IncomingMessage) -> None:
    completed: tuple[Callable[[], None], ...] = (
        partial(message.begin, 101),
        message.begin_body,
        partial(message.count_body, 1),
        message.end,
    )
    for complete in completed:
        message.overhead_bytes += 10
        complete()
        assert message.overhead_bytes == 0


def test_so_many_chunks_are_free_and_the_others_need_so_many_bytes(message: IncomingMessage) -> None:
    message.begin_body()
    for _ in range(1024):
        message.count_chunk()
    message.count_body(2 * 128)
    message.count_chunk()
    message.count_chunk()
    with pytest.raises(MalformedRequest, match="send 128 bytes and more in each"):
        message.count_chunk()


def test_each_body_has_free_chunks_of_its_own(message: IncomingMessage) -> None:
    for _ in range(3):
        message.begin_body()
        for _ in range(1024):
            message.count_chunk()
