"""All connections of one server: what each may take, how many there may be, and the clock that is held against them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
from collections.abc import AsyncIterator, Iterable
from typing import Protocol, cast

import uvicorn

logger = logging.getLogger("unihead")

_SWEEP_S = 0.25
# Connections above the limit that are told so; still more are closed without a word.
REFUSED_AT_ONCE = 64
# Files and sockets that are no connections of clients, and connections that are being refused.
_OTHER_FILES = 64 + REFUSED_AT_ONCE


class Connection(Protocol):
    """What has deadlines."""

    def sweep(self, now: float) -> None:
        """Do what is due; `now` in seconds of the loop's clock."""

    @property
    def idle_until(self) -> float | None:
        """When it is closed for want of a request, in the loop's time; None while it is in use."""

    def close(self) -> None:
        """Close without another word."""

    def shutdown(self) -> None:
        """End soon."""


@contextlib.asynccontextmanager
async def sweep_connections(server: uvicorn.Server) -> AsyncIterator[None]:
    """Hold the clock against a server's connections, a few times a second, as long as the block runs."""
    task = asyncio.ensure_future(_sweep(server))
    try:
        yield
    finally:
        task.cancel()


async def _sweep(server: uvicorn.Server) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_SWEEP_S)
        now, leaving = loop.time(), server.started and not any(one.is_serving() for one in server.servers)
        for connection in cast("list[Connection]", list(server.server_state.connections)):
            try:
                connection.sweep(now)
                if leaving:  # uvicorn tells those that it knows when it stops to listen, and misses the last to come in
                    connection.shutdown()
            except Exception:  # one connection's fault must not stop the clock of all others
                logger.exception("a connection could not be looked after, and is closed")
                connection.close()


def close_most_idle(connections: Iterable[Connection]) -> bool:
    """Close the connection that has waited longest for its next request; returns whether there was one."""
    idle = [(until, connection) for connection in connections if (until := connection.idle_until) is not None]
    if idle:
        min(idle, key=lambda pair: pair[0])[1].close()
    return bool(idle)


def fit_connections(wanted: int) -> int:
    """Let this process open files for so many connections; returns how many it may, `wanted` at most."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and allowed < wanted + _OTHER_FILES:
        allowed = wanted + _OTHER_FILES if most == resource.RLIM_INFINITY else min(wanted + _OTHER_FILES, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    if allowed == resource.RLIM_INFINITY or allowed >= wanted + _OTHER_FILES:
        return wanted
    fitting = max(1, allowed - _OTHER_FILES)
    logger.warning("%d connections are taken, not %d: this process may open %d files", fitting, wanted, allowed)
    return fitting
