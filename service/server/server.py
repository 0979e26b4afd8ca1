"""The server: all its connections, the clock that is held against them, and its shutdown, in order and in time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from types import FrameType
from typing import Protocol, cast

import uvicorn

logger = logging.getLogger("unihead")

# Seconds that requests under way have; proxies and orchestrators are told more (docs/deploy.md).
DRAIN_S = 20
# Seconds after that in which threads end and files are closed.
_CLOSE_S = 4
_LAST_WORD_S = 1
SIGNALS = (signal.SIGTERM, signal.SIGINT)

_SWEEP_S = 0.25
# Connections above the limit that are told so; still more are closed without a word.
REFUSED_AT_ONCE = 64
# Files and sockets that are no connections of clients, and connections that are being refused.
_OTHER_FILES = 64 + REFUSED_AT_ONCE


class GracefulServer(uvicorn.Server):
    """Leaves at the first SIGTERM or SIGINT, in order; at the second it waits for nobody any more.

    uvicorn hurries at a second SIGINT only, lets requests that it cuts off go on, and raises the signal once more in
    the end, after which leaving with 0 takes another handler.
    """

    def __init__(self, config: uvicorn.Config, *, on_leave: Callable[[], None], delay_s: float = 0) -> None:
        """Wait for signals as soon as they are sent to `handle_exit`.

        Args:
            config: with `DRAIN_S` as its graceful timeout.
            on_leave: called once, at the first signal: nothing is ready from then on.
            delay_s: seconds from then until new connections are refused, for balancers that have to notice.
        """
        super().__init__(config)
        self._on_leave = on_leave
        self._delay_s = delay_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """Take a signal, between any two steps of the main thread."""
        if self.should_exit:
            self.force_exit = True
            return
        self.should_exit = True
        self._on_leave()
        _end_by_force_after(self._delay_s + DRAIN_S + _CLOSE_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse what is new, answer what was asked; what is not answered by then is told so."""
        deadline = time.monotonic() + self._delay_s
        while time.monotonic() < deadline and not self.force_exit:  # noqa: ASYNC110 - a signal handler ends it
            await asyncio.sleep(0.05)
        logger.info("leaving: %d connections, %d requests under way", *self._count())
        logging.getLogger("uvicorn.error").addFilter(_is_no_cut_request)
        await super().shutdown(sockets)
        tasks = set(self.server_state.tasks)
        if tasks:
            logger.warning("leaving without %d answers", len(tasks))
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_LAST_WORD_S)

    def _count(self) -> tuple[int, int]:
        return len(self.server_state.connections), len(self.server_state.tasks)


def _is_no_cut_request(record: logging.LogRecord) -> bool:
    """Leave out the tracebacks of requests that were cut off: they were told so, and have lines of their own."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


def _end_by_force_after(seconds: float) -> None:
    """The last resort against a thread that never ends; SIGKILL would come soon after."""

    def end() -> None:
        names = ", ".join(sorted(thread.name for thread in threading.enumerate()))
        logger.critical("the service could not end in time and is ended by force; its threads: %s", names)
        time.sleep(_LAST_WORD_S)  # for the log's thread
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


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
