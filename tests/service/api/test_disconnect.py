from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from service.api.scope import DISCONNECT, Disconnect, listen_for_disconnect

pytestmark = pytest.mark.anyio


async def never() -> Message:
    raise AssertionError("the connection tells, and nothing is received")


def test_everybody_who_listens_is_told_once() -> None:
    connection, told = Disconnect(), list[str]()
    connection.listen(lambda: told.append("first"))
    stay = connection.listen(lambda: told.append("second"))
    connection.listen(lambda: told.append("third"))
    stay()
    for _ in range(2):
        connection.tell()
    stay()
    assert sorted(told) == ["first", "third"]


def test_who_listens_too_late_is_told_at_once() -> None:
    connection, told = Disconnect(), list[str]()
    connection.tell()
    stay = connection.listen(lambda: told.append("disconnected"))
    assert told == ["disconnected"]
    stay()


async def test_a_request_of_our_server_is_told_by_its_connection() -> None:
    connection, told = Disconnect(), list[str]()
    listen_for_disconnect(
        {"type": "http", "state": {DISCONNECT: connection}}, never, lambda: told.append("disconnected")
    )
    connection.tell()
    assert told == ["disconnected"]


@pytest.mark.parametrize("stays", [False, True])
async def test_under_another_server_the_next_message_tells(stays: bool) -> None:
    told, messages = list[str](), asyncio.Queue[Message]()
    stay = listen_for_disconnect({"type": "http", "state": {}}, messages.get, lambda: told.append("disconnected"))
    await asyncio.sleep(0)
    if stays:
        stay()
    messages.put_nowait({"type": "http.request"})
    messages.put_nowait({"type": "http.disconnect"})
    for _ in range(5):
        await asyncio.sleep(0)
    assert told == ([] if stays else ["disconnected"])
