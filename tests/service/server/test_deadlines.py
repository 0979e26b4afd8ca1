"""Each deadline of a connection, by a clock that tests move; `test_protocol.py` waits for one of each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI

from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.engine.golden import GOLDEN_PICTURES
from service.settings import Settings
from tests.attacks.sockets import statuses
from tests.service.fakes import FakeSession
from tests.service.server.wire import Wire

pytestmark = pytest.mark.anyio

PICTURE = (GOLDEN_PICTURES / "chelsea.jpg").read_bytes()
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
POST = HEAD + b"Content-Length: %d\r\n\r\n%b"


@pytest.fixture
async def app(session: FakeSession, contract: ModelContract) -> AsyncIterator[FastAPI]:
    app = create_app(Settings(header_timeout_s=1, body_timeout_s=2, threads=1), Engine(session, contract))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def wire(app: FastAPI) -> Wire:
    return Wire(app)


async def test_who_says_nothing_is_closed_without_a_word(wire: Wire) -> None:
    await wire.wait(10)
    assert (wire.received, wire.lasted_s) == (b"", 1)


async def test_a_dripping_header_is_refused_in_time(wire: Wire) -> None:
    await wire.send(b"GET /healthz HTTP/1.1\r\n")
    await wire.drip(b"X-Slow: " + b"a" * 100)
    assert statuses(wire.received) == [408]
    assert 0.9 < wire.lasted_s < 1.5


async def test_empty_lines_keep_no_connection_open(wire: Wire) -> None:
    await wire.send(GET)
    assert statuses(wire.received) == [200]
    await wire.drip(b"\r\n" * 50)
    assert wire.ended
    assert wire.lasted_s < 1.5


async def test_a_dripping_body_is_refused_in_time(wire: Wire) -> None:
    await wire.send(HEAD + b"Content-Length: 1000\r\n\r\n")
    await wire.drip(PICTURE[:100])
    assert statuses(wire.received) == [408]
    assert b"connection: close" in wire.received.lower()
    assert 1.9 < wire.lasted_s < 2.5


async def test_a_body_that_nobody_wants_is_not_listened_to_for_ever(wire: Wire) -> None:
    await wire.send(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    await wire.drip(PICTURE[:100])
    assert statuses(wire.received) == [404]
    assert wire.ended
    assert wire.lasted_s < 2.5


async def test_half_a_head_behind_a_request_has_no_more_time_than_any_other(wire: Wire) -> None:
    await wire.send(GET + b"GET /heal")
    await wire.wait(10)
    assert statuses(wire.received) == [200, 408]
    assert 0.9 < wire.lasted_s < 1.5


async def test_the_time_of_a_body_begins_with_its_request_and_not_with_the_one_before(wire: Wire) -> None:
    await wire.send(POST % (4, b"abc"))
    await wire.wait(1.5)
    await wire.send(b"d" + POST % (4, b"abc"))
    assert statuses(wire.received) == [415]
    await wire.wait(1)
    await wire.send(b"d")
    assert statuses(wire.received) == [415, 415]


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"X-Slow: ", POST % (100_000, b"")])
async def test_at_the_end_nobody_who_has_not_asked_is_waited_for_long(wire: Wire, sent: bytes) -> None:
    await wire.send(sent)
    wire.protocol.shutdown()
    await wire.wait(10)
    assert wire.ended
    assert wire.lasted_s < 2.5


async def test_at_the_end_who_idles_is_closed_at_once(wire: Wire) -> None:
    await wire.send(GET)
    wire.protocol.shutdown()
    assert (wire.ended, wire.lasted_s) == (True, 0)


async def test_at_the_end_who_has_just_connected_is_answered(wire: Wire) -> None:
    wire.protocol.shutdown()
    await wire.wait(0.5)
    await wire.send(GET)
    assert statuses(wire.received) == [200]
    assert b"connection: close" in wire.received
    assert wire.ended


async def test_what_is_unsent_counts_until_the_connection_is_lost(app: FastAPI, wire: Wire) -> None:
    memory = app.state.service.memory
    wire.unsent = 10 * 2**20
    await wire.send(GET)
    assert memory.taken["answers"] == 10 * 2**20
    wire.protocol.connection_lost(None)
    assert memory.total() == 0
