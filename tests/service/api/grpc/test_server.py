"""The port's beginning and end; the process around it is in tests/over_http/test_grpc_process.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from service.api.grpc.server import GrpcServer
from tests.service.api.grpc.asking import INFER, Port, make_message
from tests.service.harness import GatedSession, until

pytestmark = pytest.mark.anyio


async def test_a_port_that_is_taken_is_an_error(port: Port, start: Callable[..., Any]) -> None:
    with pytest.raises(OSError, match="taken"):
        async with start(grpc_port=port.server.port):
            pass


async def test_calls_in_flight_are_answered_and_new_ones_are_not_taken(port: Port, session: GatedSession) -> None:
    session.gate.clear()
    begun = port.call(INFER, make_message())
    await until(lambda: session.inside == 1)
    draining = asyncio.ensure_future(port.server.drain(10, lambda: False))
    await asyncio.sleep(0.1)
    assert not draining.done()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port.server.port}") as channel:
        late: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await late(make_message(), timeout=5)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    session.gate.set()
    assert await begun
    await draining


@pytest.mark.parametrize(("timeout_s", "is_forced"), [(0.1, False), (60, True)])
async def test_what_takes_longer_is_answered_unavailable(
    port: Port, session: GatedSession, timeout_s: float, is_forced: bool
) -> None:
    session.gate.clear()
    begun = port.call(INFER, make_message())
    await until(lambda: session.inside == 1)
    await asyncio.wait_for(port.server.drain(timeout_s, lambda: is_forced), 5)
    with pytest.raises(grpc.aio.AioRpcError, match="the service stops") as failure:
        await begun
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert port.answered(503) == 1


async def test_a_port_that_never_started_ends_at_once(port: Port) -> None:
    state = port.state
    unstarted = GrpcServer(state)
    await asyncio.wait_for(unstarted.drain(10, lambda: False), 2)
