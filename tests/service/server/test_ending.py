"""What ends a connection: a client that sends no more, or has left, and answers that take long to be read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.api.scope import DISCONNECT
from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.memory import MemoryBudget
from service.server.places import Places
from service.server.protocol import Protocol
from service.settings import Settings
from tests.attacks.sockets import statuses
from tests.service.fakes import FakeSession
from tests.service.server.wire import Wire

pytestmark = pytest.mark.anyio

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
ASKED = b"HTTP/1.1 100 Continue\r\n\r\n"
SIZE = 8_000_000


class WaitingApp:
    """Answers when it is let, and notes whether it was told of a disconnect."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.is_told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI has it
        scope["state"][DISCONNECT].listen(lambda: setattr(self, "is_told", True))
        await self.let.wait()
        headers = [(b"content-length", b"%d" % SIZE)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(SIZE)})


@pytest.fixture
async def app(session: FakeSession, contract: ModelContract) -> AsyncIterator[FastAPI]:
    app = create_app(Settings(threads=1), Engine(session, contract))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def wire(app: FastAPI) -> Wire:
    return Wire(app)


async def until(condition: Callable[[], bool]) -> None:
    """The other end of a socket tells nobody what it has come to."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.001)


@dataclass(frozen=True, slots=True)
class Talk:
    """Both ends of one connection, over a socket of this process."""

    app: WaitingApp
    protocol: Protocol
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def sweep(self, after_s: float) -> None:
        """Let the server believe that so many seconds have passed since the test began to wait."""
        self.protocol.sweep(asyncio.get_running_loop().time() + after_s)

    @property
    def is_closing(self) -> bool:
        """Whether the server has given the connection up."""
        return self.protocol._stream.is_closing()

    @property
    def has_ended(self) -> bool:
        """Whether the server knows that the client sends no more."""
        return self.protocol._client_ended_at < math.inf

    async def answer(self) -> None:
        """Let the app answer, as far as its part goes."""
        self.app.let.set()
        await until(lambda: self.protocol.cycle.response_complete)


@asynccontextmanager
async def talk(sent: bytes) -> AsyncIterator[Talk]:
    """Send something that is one request, as far as the app is concerned."""
    app = WaitingApp()
    config = uvicorn.Config(app, http=Protocol, lifespan="off", log_config=None)
    places, memory = Places(1), MemoryBudget(2**20)
    protocol = Protocol(config, ServerState(), {}, settings=Settings(), places=places, memory=memory)
    server = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=2**12)
    try:
        writer.write(sent)
        await until(lambda: protocol._newest is not None)
        yield Talk(app, protocol, reader, writer)
    finally:
        app.let.set()
        writer.transport.abort()
        protocol._stream.abort()
        server.close()
        await asyncio.sleep(0.01)


# A client that sends no more


@pytest.mark.parametrize(
    ("sent", "answers"),
    [(GET, [200]), (POST, [415]), (GET + POST + GET, [200, 415, 200]), (POST + b"GET /heal", [415])],
)
async def test_who_sends_no_more_is_answered_all_that_was_asked(wire: Wire, sent: bytes, answers: list[int]) -> None:
    wire.protocol.data_received(sent)  # and before anything is answered
    await wire.end()
    assert statuses(wire.received) == answers
    assert wire.ended


@pytest.mark.parametrize("sent", [b"", b"GET /heal", POST[:-1], GET])
async def test_who_has_asked_nothing_more_is_closed_with_it(wire: Wire, sent: bytes) -> None:
    await wire.send(sent)
    assert not await wire.end()
    assert ASKED not in wire.received


async def test_who_sends_no_more_is_asked_once_whether_it_is_there_and_answered_then() -> None:
    async with talk(GET) as one:
        one.writer.write_eof()
        await until(lambda: one.has_ended)
        for seconds in (0.5, 1.1, 1.5, 9):
            one.sweep(seconds)
            await asyncio.sleep(0.01)
        assert not one.app.is_told
        one.app.let.set()
        received = await one.reader.read(-1)
        assert received.startswith(ASKED + b"HTTP/1.1 200 OK\r\n")
        assert len(received) > SIZE


async def test_who_is_answered_soon_is_not_asked() -> None:
    async with talk(GET) as one:
        one.writer.write_eof()
        await until(lambda: one.has_ended)
        one.sweep(0.5)
        await one.answer()
        one.sweep(5)
        assert (await one.reader.read(-1)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_who_has_left_is_noticed_when_it_is_asked() -> None:
    async with talk(GET) as one:
        one.writer.close()
        await until(lambda: one.has_ended)
        one.sweep(0.5)
        await asyncio.sleep(0.02)
        assert not one.app.is_told
        one.sweep(1.1)
        await asyncio.sleep(0.02)  # until its system has said so
        one.sweep(1.4)
        await until(lambda: one.app.is_told)


async def test_http_1_0_which_knows_no_such_answer_is_not_asked() -> None:
    async with talk(b"GET /healthz HTTP/1.0\r\n\r\n") as one:
        one.writer.write_eof()
        await until(lambda: one.has_ended)
        one.sweep(5)
        one.app.let.set()
        assert (await one.reader.read(-1)).startswith(b"HTTP/1.1 200 OK\r\n")


# An answer that takes long to be read


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("server_leaves", [False, True])
async def test_the_time_after_the_last_answer_begins_when_it_has_been_taken(is_last: bool, server_leaves: bool) -> None:
    """Whether the client asked for it, the server leaves, or both."""
    async with talk(GET if not is_last else GET[:-2] + b"Connection: close\r\n\r\n") as one:
        await one.answer()
        if server_leaves:
            one.protocol.shutdown()
        for seconds in range(0, 10, 2):  # more than 5 and 1; `write_timeout_s` is 10
            one.sweep(seconds)
        await asyncio.sleep(0.01)
        await one.reader.readuntil(b"\r\n\r\n")
        assert len(await one.reader.readexactly(SIZE)) == SIZE
        await until(lambda: not one.protocol.is_untaken)
        if is_last or server_leaves:
            assert await one.reader.read() == b""
            one.sweep(8.5)
            assert not one.is_closing
            one.sweep(13.1)
            assert one.is_closing
        else:
            one.sweep(100)
            assert not one.is_closing


async def test_an_answer_is_taken_at_the_promised_rate_though_the_system_tells_of_it_in_large_steps() -> None:
    """Megabytes of it wait in the kernel, which takes more when a third of them has gone."""
    async with talk(GET) as one:
        await one.answer()
        for step in range(80):  # 64 KiB in 10 s, for 800 s
            await one.reader.readexactly(2**16)
            await asyncio.sleep(0.001)
            one.sweep(10 * step)
        assert not one.is_closing
        for step in range(81, 130):
            one.sweep(10 * step)
        assert one.is_closing


# The limit of connections


async def test_at_the_limit_health_and_metrics_are_answered_and_nothing_else(app: FastAPI) -> None:
    places = Places(2)
    for _ in range(2):
        await Wire(app, places).send(POST[:-1])
    for sent, status in (
        (GET, 200),
        (GET.replace(b"/healthz", b"/readyz"), 200),
        (GET.replace(b"/healthz", b"/metrics"), 200),
        (GET.replace(b"/healthz", b"/v2/health/live"), 200),
        (GET.replace(b"/healthz", b"/info"), 503),
        (GET.replace(b"/healthz", b"/"), 503),
        (POST, 503),
    ):
        late = Wire(app, places)
        await late.send(sent)
        assert statuses(late.received) == [status]
        assert b"connection: close" in late.received
        assert late.ended
        if status == 503:
            assert b"retry-after: 1" in late.received
            assert b"2 connections are open, which is the limit" in late.received
    metrics = app.state.service.metrics.registry
    assert metrics.get_sample_value("unihead_refused_requests_total", {"reason": "connections"}) == 3.0


async def test_a_place_is_given_back_with_its_connection_and_kept_from_head_to_answer(app: FastAPI) -> None:
    places = Places(1)
    first = Wire(app, places)
    await first.send(GET)
    second = Wire(app, places)
    await second.send(POST[:-1])
    assert first.ended  # it idled
    third = Wire(app, places)
    await third.send(POST)
    assert statuses(third.received) == [503]
    second.protocol.connection_lost(None)
    fourth = Wire(app, places)
    await fourth.send(POST)
    assert statuses(fourth.received) == [415]
    assert not fourth.ended
