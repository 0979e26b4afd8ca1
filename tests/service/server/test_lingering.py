"""How long a connection is kept whose last answer is written, over a connection of this process."""

from __future__ import annotations

import asyncio

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.memory import MemoryBudget
from service.server.places import Places
from service.server.protocol import Protocol
from service.settings import Settings

ONE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HALF_A_BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na"


async def answer(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - as ASGI has it
    await send({"type": "http.response.start", "status": 204, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body"})


@pytest.mark.anyio
@pytest.mark.parametrize("behind", [b"", HALF_A_BODY])
async def test_no_request_behind_the_last_one_keeps_the_connection_longer(behind: bytes) -> None:
    loop, state = asyncio.get_running_loop(), ServerState()
    config = uvicorn.Config(answer, http=Protocol, lifespan="off", log_config=None)
    settings, memory = Settings(body_timeout_s=60), MemoryBudget(2**20)
    protocol = Protocol(config, state, {}, settings=settings, places=Places(1), memory=memory)
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
    async with server, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(ONE + behind)
        assert (await reader.read()).startswith(b"HTTP/1.1 204")
        while protocol.is_untaken:  # noqa: ASYNC110 - the system acknowledges within 40 ms, without a word
            await asyncio.sleep(0.01)
        protocol.sweep(loop.time() + 4)
        await asyncio.sleep(0)
        assert state.connections
        protocol.sweep(loop.time() + 6)
        await asyncio.sleep(0.01)
        assert not state.connections
        writer.close()
