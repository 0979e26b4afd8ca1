"""gRPC's own health check; with the client of the library it comes from."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from service.api.grpc.methods import SERVICE
from tests.service.api.grpc.asking import Port

pytestmark = pytest.mark.anyio

Stub: TypeAlias = Any  # its types have no methods
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


def make_stub(port: Port) -> Stub:
    return HealthStub(port.channel)


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_it_says_what_readyz_says(port: Port, service: str) -> None:
    stub = make_stub(port)
    assert (await stub.Check(HealthCheckRequest(service=service))).status == SERVING
    port.state.drain()
    assert (await stub.Check(HealthCheckRequest(service=service))).status == NOT_SERVING
    assert await port.call("/inference.GRPCInferenceService/ServerReady", b"") == b""


async def test_of_another_service_it_knows_nothing(port: Port) -> None:
    stub = make_stub(port)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.Check(HealthCheckRequest(service="other"))
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(HealthCheckRequest(service="other"))
    assert (await watch.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


async def test_who_watches_is_told_of_a_change(port: Port) -> None:
    stub = make_stub(port)
    watches = [stub.Watch(HealthCheckRequest()) for _ in range(2)]
    assert [(await watch.read()).status for watch in watches] == [SERVING, SERVING]
    watches.pop().cancel()
    port.state.drain()
    assert [(await watch.read()).status for watch in watches] == [NOT_SERVING]


async def test_only_so_many_may_watch(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.grpc.health.MOST_WATCHERS", 1)
    stub = make_stub(port)
    first = stub.Watch(HealthCheckRequest())
    assert (await first.read()).status == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.Watch(HealthCheckRequest()).read()
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    first.cancel()


async def test_a_message_that_is_none_is_refused(port: Port) -> None:
    for method in ("Check", "Watch"):
        begin: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = port.channel.unary_stream(
            f"/grpc.health.v1.Health/{method}"
        )
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await begin(b"\x0a\xff").read()
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
