"""What grpc.aio does not bound by itself, or dies of; asked byte for byte."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc

from service.api.grpc.core import MOST_STREAMS, choose_options
from service.settings import Settings
from tests.attacks.calls import call, frame, head
from tests.service.api.grpc.asking import INFER, Port, make_message
from tests.service.harness import until

pytestmark = pytest.mark.anyio

START = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
GOAWAY, ENHANCE_YOUR_CALM = 7, 11


def list_frames(received: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, stream and payload of each frame."""
    while len(received) >= 9:
        length = int.from_bytes(received[:3], "big")
        yield received[3], int.from_bytes(received[5:9], "big"), received[9 : 9 + length]
        received = received[9 + length :]


def read_to_end(connection: socket.socket) -> bytes:
    received = b""
    try:
        while piece := connection.recv(2**16):
            received += piece
    except ConnectionResetError:
        pass
    return received


async def exchange(port: Port, sent: bytes) -> bytes:
    """Send bytes, end, and return what comes back."""

    def run() -> bytes:
        with port.connect() as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            return read_to_end(connection)

    return await asyncio.to_thread(run)


@pytest.mark.parametrize("path", [b"/a/\xff\xfe", b"/a/b", b"", INFER.encode() + b"\xff"])
async def test_a_path_that_is_none_ends_neither_the_server_nor_other_calls(port: Port, path: bytes) -> None:
    """grpc.aio's own loop reads it as UTF-8, and dies of it."""
    with port.connect() as connection:
        connection.sendall(START + call(make_message(), head(path)))
        await until(lambda: port.answered(404, "unmatched") == 1)
        await port.infer()
    await port.infer()


async def test_an_unknown_method_is_named_as_such(port: Port) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="no such method") as failure:
        await port.call(INFER.replace("Infer", "StreamInfer"), b"")
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_names_that_are_built_on_are_there() -> None:
    assert callable(cygrpc.AioServer._request_call)
    assert callable(cygrpc._ServicerContext)
    assert issubclass(cygrpc.ExecuteBatchError, Exception)


async def test_a_client_is_told_how_many_calls_and_how_much_metadata_it_may_send(port: Port) -> None:
    received = await exchange(port, START)
    settings = next(payload for kind, _, payload in list_frames(received) if kind == 4)
    values = dict(struct.iter_unpack(">HI", settings))
    assert (values[3], values[6]) == (MOST_STREAMS, port.state.settings.max_header_bytes)


async def test_too_much_metadata_is_refused(start: Callable[..., Any]) -> None:
    async with start(max_header_bytes=2048) as port:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await port.call(INFER, make_message(), (("x-more", "x" * 4000),))
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_message_that_is_too_long_is_refused(port: Port) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="arger than max") as failure:
        await port.call(INFER, bytes(200_001))
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_packed_message_is_as_long_as_what_it_unpacks_to(port: Port) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port.server.port}", compression=grpc.Compression.Gzip) as channel:
        begin: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
        with pytest.raises(grpc.aio.AioRpcError, match="arger than max") as failure:
            await begin(bytes(50_000_000), timeout=10)
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_flood_of_pings_ends_the_connection(port: Port) -> None:
    received = await exchange(port, START + frame(6, 0, 0, bytes(8)) * 20)
    reasons = [payload[4:8] for kind, _, payload in list_frames(received) if kind == GOAWAY]
    assert ENHANCE_YOUR_CALM.to_bytes(4, "big") in reasons


async def test_a_client_that_says_nothing_is_left(start: Callable[..., Any]) -> None:
    async with start(header_timeout_s=0.2) as port:
        with port.connect() as connection:
            assert len(await asyncio.to_thread(read_to_end, connection)) < 200


def test_idle_and_silent_connections_are_bounded() -> None:
    """Their times are minutes, which no test waits for."""
    options = dict(choose_options(Settings()))
    for name in (
        "max_connection_idle_ms",
        "keepalive_time_ms",
        "keepalive_timeout_ms",
        "max_allowed_incoming_connections",
    ):
        assert 0 < options[f"grpc.{name}"] < 100_000


async def test_connections_beyond_the_limit_are_closed(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.grpc.core.MOST_CONNECTIONS", 2)
    async with start() as port:
        await port.infer()  # the first one
        with port.connect() as second, port.connect() as third:
            second.sendall(START)
            third.sendall(START)
            second.settimeout(0.5)
            third.settimeout(5)
            assert await asyncio.to_thread(second.recv, 100)
            assert await asyncio.to_thread(read_to_end, third) == b""
