"""The server of grpc.aio, bounded, and without the door by which one byte ends it.

grpc.aio reads the path of a call for which no method is registered as UTF-8, in the task that takes all calls: a path
that is none ends the server with everything that it answers (grpcio 1.85). Here such a call never gets there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from grpc._cython import cygrpc

from service.settings import Settings

# Connections at once; one carries many calls, so that a client needs one.
MOST_CONNECTIONS = 256
# Calls at once on a connection; the next wait at the client.
MOST_STREAMS = 100
# Calls at once, all connections together; the next are refused with RESOURCE_EXHAUSTED.
MOST_CALLS = 2048
# As long as idle connections of the other port are kept.
_IDLE_MS = 75_000
# A peer that is silent for so long is asked whether it is still there, and has so long to say so.
_KEEPALIVE_MS, _KEEPALIVE_TIMEOUT_MS = 60_000, 20_000
# Pings that come faster are counted, and end the connection (too_many_pings).
_LEAST_PING_MS, _MOST_STRIKES = 10_000, 2
_UNKNOWN_METHOD = (
    "there is no such method; the service is inference.GRPCInferenceService, and docs/how-to/grpc.md lists its"
)


def choose_options(settings: Settings) -> tuple[tuple[str, int], ...]:
    """Bound what clients may send and keep open; names are those of gRPC's channel arguments."""
    return (
        ("grpc.so_reuseport", 0),  # a port that is taken is a mistake, and not to be shared
        ("grpc.max_receive_message_length", settings.max_body_bytes),  # of a packed message, what it unpacks to
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", settings.max_header_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_header_bytes),
        ("grpc.max_concurrent_streams", MOST_STREAMS),
        ("grpc.max_allowed_incoming_connections", MOST_CONNECTIONS),
        ("grpc.server_handshake_timeout_ms", round(settings.header_timeout_s * 1000)),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_PING_MS),
        ("grpc.http2.max_ping_strikes", _MOST_STRIKES),
    )


class Core(cygrpc.AioServer):  # type: ignore[misc]  # it has no types
    """Takes calls of the methods that are registered, and refuses all others."""

    def __init__(
        self,
        options: tuple[tuple[str, int], ...],
        handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]],
        *,
        on_unknown: Callable[[], None],
    ) -> None:
        """Be ready to listen; in the event loop that will take the calls.

        Args:
            options: see `choose_options`.
            handlers: of the methods, by path.
            on_unknown: told of every call that no method is registered for.
        """
        super().__init__(asyncio.get_running_loop(), None, (), (), options, MOST_CALLS)
        self.add_registered_method_handlers(dict(handlers))
        self._on_unknown = on_unknown
        self._refusals: set[asyncio.Task[None]] = set()

    def listen(self, host: str, port: int) -> int:
        """Take a port; 0 takes a free one, which is returned.

        Raises:
            OSError: it is taken, or the address is none.
        """
        where = f"[{host}]" if ":" in host else host
        found: int = self.add_insecure_port(f"{where}:{port}".encode())
        if not found:
            raise OSError("the port is taken, or the address is none of this machine's")
        return found

    async def _request_call(self) -> Any:  # noqa: ANN401 - never returns
        """Wait for calls that no method is registered for; the server's loop, which reads their paths, gets none."""
        while True:
            state = await super()._request_call()
            self._refusals.add(task := asyncio.ensure_future(self._refuse(state)))
            task.add_done_callback(self._refusals.discard)

    async def _refuse(self, state: Any) -> None:  # noqa: ANN401 - it has no type
        context = cygrpc._ServicerContext(state, None, None, asyncio.get_running_loop())  # noqa: SLF001 - see above
        self._on_unknown()
        try:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, _UNKNOWN_METHOD, ())
        except (grpc.aio.AbortError, cygrpc.ExecuteBatchError):
            return  # the first is how an abort ends; the second, that its client has left
