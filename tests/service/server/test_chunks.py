"""How many pieces a body may come in, over a connection of this process to an app that only counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.api.scope import BODY_FAULT
from service.memory import MemoryBudget
from service.server.places import Places
from service.server.protocol import Protocol
from service.settings import Settings


class CountingApp:
    """Answers with the bytes of the body, or says what ended it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        total, more = 0, True
        while more:
            message = await receive()
            total, more = total + len(message.get("body", b"")), message.get("more_body", False)
        fault = scope["state"][BODY_FAULT]
        content = str(fault or total).encode()
        await send({"type": "http.response.start", "status": fault.status if fault else 200, "headers": []})
        await send({"type": "http.response.body", "body": content})


def make_protocol() -> Callable[[], Protocol]:
    config = uvicorn.Config(CountingApp(), http=Protocol, lifespan="off", log_config=None)
    places, memory = Places(2), MemoryBudget(2**20)
    return lambda: Protocol(config, ServerState(), {}, settings=Settings(), places=places, memory=memory)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("chunks", "chunk_bytes", "answer"),
    [
        (600, 200, b"120000"),
        (1024, 1, b"1024"),  # so many are free, however small
        (3000, 128, b"384000"),
        (2100, 64, b"the body comes in too many chunks; send 128 bytes and more in each"),
        (1100, 1, b"the body comes in too many chunks; send 128 bytes and more in each"),
    ],
)
async def test_small_chunks_are_as_few_as_they_are_small(chunks: int, chunk_bytes: int, answer: bytes) -> None:
    chunk = b"%x\r\n%b\r\n" % (chunk_bytes, bytes(chunk_bytes))
    server = await asyncio.get_running_loop().create_server(make_protocol(), "127.0.0.1", 0)
    async with server, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(chunk * chunks + b"0\r\n\r\n")
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert said.endswith(b"\r\n" + answer) or b"\r\n%b\r\n" % answer in said
