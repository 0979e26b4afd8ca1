"""gRPC's own health check (grpc.health.v1), for orchestrators and balancers: what /readyz says, over this port.

The messages are those of grpcio-health-checking. Its servicer is not used: it writes to a watcher under the lock that
every change needs, so that one that reads nothing would keep the shutdown waiting.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1.health import SERVICE_NAME
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from service.api.grpc.calls import Call, Context, Method, receive
from service.api.grpc.methods import SERVICE
from service.api.grpc.reading import Reading
from service.api.grpc.statuses import find_status
from service.api.state import ServiceState
from service.errors import MalformedRequest, UniheadError, UnknownModel

# Those that watch at once: each is a call that never ends by itself.
MOST_WATCHERS = 64
WATCH = f"/{SERVICE_NAME}/Watch"
_LOOK_EVERY_S = 0.25


def find_health(state: ServiceState, message: bytes) -> HealthCheckResponse:
    """Say whether pictures should be sent to the service that a message asks for; empty is the whole server.

    Raises:
        MalformedRequest: the message is none.
    """
    try:
        name = HealthCheckRequest.FromString(message).service
    except DecodeError as error:
        raise MalformedRequest(f"the message is no HealthCheckRequest: {str(error)[:200]}") from error
    if name not in {"", SERVICE}:
        return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
    is_ready = state.is_ready()
    return HealthCheckResponse(status=HealthCheckResponse.SERVING if is_ready else HealthCheckResponse.NOT_SERVING)


async def _check(call: Call, message: bytes) -> bytes:
    found = find_health(call.service, message)
    if found.status == HealthCheckResponse.SERVICE_UNKNOWN:
        raise UnknownModel(f"there is no such service here; there is {SERVICE}, or an empty name for all")
    return found.SerializeToString()


CHECK = Method(f"/{SERVICE_NAME}/Check", _check, is_open=True)


class Watchers:
    """Those that want to hear of every change."""

    def __init__(self, state: ServiceState, reading: Reading) -> None:
        """Take whose health it is, and how messages get in."""
        self._state = state
        self._reading = reading
        self._count = 0

    def make_handler(self) -> grpc.RpcMethodHandler[Any, Any]:
        """Make what grpc.aio calls."""
        return grpc.stream_stream_rpc_method_handler(self._watch)

    async def _watch(self, _: object, context: Context) -> None:
        if self._count >= MOST_WATCHERS:
            sentence = f"{MOST_WATCHERS} watch already, which is the limit; call Check now and then"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, sentence)
        self._count += 1
        try:
            with self._state.memory.open() as share:
                message = await self._reading.read(lambda: receive(context), share) or b""
            told = None
            while True:
                found = find_health(self._state, message)
                if found != told:
                    await context.write(found.SerializeToString())
                told = found
                await asyncio.sleep(_LOOK_EVERY_S)
        except UniheadError as error:
            await context.abort(find_status(error), str(error))
        finally:
            self._count -= 1
