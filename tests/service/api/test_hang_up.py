from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from service.api.hang_up import HANG_UP, HangUp, listen_for_hang_up

pytestmark = pytest.mark.anyio


def test_everybody_who_listens_is_told_once() -> None:
    connection, told = HangUp(), list[str]()
    connection.listen(lambda: told.append("first"))
    stay = connection.listen(lambda: told.append("second"))
    connection.listen(lambda: told.append("third"))
    stay()
    for _ in range(2):
        connection.tell()
    stay()
    assert sorted(told) == ["first", "third"]


def test_who_listens_too_late_is_told_at_once() -> None:
    connection, told = HangUp(), list[str]()
    connection.tell()
    stay = connection.listen(lambda: told.append("gone"))
    assert told == ["gone"]
    stay()


async def test_a_request_of_our_server_is_told_by_its_connection() -> None:
    connection, told = HangUp(), list[str]()
    request = Request({"type": "http", "state": {HANG_UP: connection}})
    listen_for_hang_up(request, lambda: told.append("gone"))
    connection.tell()
    assert told == ["gone"]


@pytest.mark.parametrize("stays", [False, True])
async def test_under_another_server_the_next_message_tells(stays: bool) -> None:
    told, messages = list[str](), asyncio.Queue[Message]()
    request = Request({"type": "http", "state": {}}, messages.get)
    stay = listen_for_hang_up(request, lambda: told.append("gone"))
    await asyncio.sleep(0)
    if stays:
        stay()
    messages.put_nowait({"type": "http.request"})
    messages.put_nowait({"type": "http.disconnect"})
    for _ in range(5):
        await asyncio.sleep(0)
    assert told == ([] if stays else ["gone"])
