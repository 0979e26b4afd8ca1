"""The server: how many connections it takes, how their deadlines are kept, and its graceful shutdown."""

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
from collections.abc import AsyncIterator, Awaitable, Callable
from types import FrameType
from typing import Protocol, TypeAlias, cast

import uvicorn

from service.server.places import SPARE_PLACES

logger = logging.getLogger("unihead")

# Seconds that requests in flight have; proxies and orchestrators are told more (docs/deploy.md).
DRAIN_S = 20
# Seconds after that in which threads end and files are closed.
_CLOSE_S = 4
# Seconds in which a cancelled request is answered 503, or the last line of the log is written.
_CANCEL_S = 1
SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Takes no more requests, and answers those in flight within so many seconds, unless told that nobody waits any longer.
Drain: TypeAlias = Callable[[float, Callable[[], bool]], Awaitable[None]]

_SWEEP_S = 0.25
# Files and sockets that are no connections of clients, and connections beyond the limit.
_OTHER_FILES = 64 + SPARE_PLACES
# Below it there is hardly a place for clients, and libraries fail in words that nobody understands.
_LEAST_FILES = 256


class GracefulServer(uvicorn.Server):
    """Shuts down gracefully at the first SIGTERM or SIGINT, and at once at the second.

    uvicorn does the latter at a second SIGINT only, does not cancel requests when their time is over, and raises the
    signal once more in the end, after which exiting with 0 takes another handler.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        on_shutdown: Callable[[], None],
        delay_s: float = 0,
        beside: Drain | None = None,
    ) -> None:
        """Wait for signals as soon as they are sent to `handle_exit`.

        Args:
            config: with `DRAIN_S` as its graceful timeout.
            on_shutdown: called once, at the first signal: the service is not ready from then on.
            delay_s: seconds from then until new connections are refused, for balancers that have to notice.
            beside: of another port, which shuts down at the same time.
        """
        super().__init__(config)
        self._on_shutdown = on_shutdown
        self._delay_s = delay_s
        self._beside = beside

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """Take a signal, between any two steps of the main thread."""
        if self.should_exit:
            self.force_exit = True
            return
        self.should_exit = True
        self._on_shutdown()
        _exit_after(self._delay_s + DRAIN_S + _CLOSE_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections and answer the requests in flight; those that take longer are answered 503."""
        deadline = time.monotonic() + self._delay_s
        while time.monotonic() < deadline and not self.force_exit:  # noqa: ASYNC110 - a signal handler ends it
            await asyncio.sleep(0.05)
        logger.info("shutting down: %d connections, %d requests in flight", *self._count())
        logging.getLogger("uvicorn.error").addFilter(_is_not_cancelled)
        beside = None if self._beside is None else asyncio.ensure_future(self._beside(DRAIN_S, lambda: self.force_exit))
        await super().shutdown(sockets)
        tasks = set(self.server_state.tasks)
        if tasks:
            logger.warning("shutting down: %d requests in flight were cancelled", len(tasks))
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CANCEL_S)
        if beside is not None:
            await beside

    def _count(self) -> tuple[int, int]:
        return len(self.server_state.connections), len(self.server_state.tasks)


def _is_not_cancelled(record: logging.LogRecord) -> bool:
    """Leave out the tracebacks of cancelled requests, which were answered and have lines of their own."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


def _exit_after(seconds: float) -> None:
    """Exit by force if a thread never ends; SIGKILL would come soon after."""

    def exit_by_force() -> None:
        names = ", ".join(sorted(thread.name for thread in threading.enumerate()))
        logger.critical("the service could not end in time and is ended by force; its threads: %s", names)
        time.sleep(_CANCEL_S)  # for the log's thread
        os._exit(1)

    timer = threading.Timer(seconds, exit_by_force)
    timer.daemon = True
    timer.start()


class Connection(Protocol):
    """What the server asks of each connection."""

    def sweep(self, now: float) -> None:
        """Do what is due at its deadlines; `now` in seconds of the loop's clock."""

    def close(self) -> None:
        """Close without an answer."""

    def shutdown(self) -> None:
        """Begin the graceful shutdown."""


@contextlib.asynccontextmanager
async def sweep_connections(server: uvicorn.Server) -> AsyncIterator[None]:
    """Look at the deadlines of a server's connections, a few times a second, as long as the block runs."""
    task = asyncio.ensure_future(_sweep(server))
    try:
        yield
    finally:
        task.cancel()


async def _sweep(server: uvicorn.Server) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_SWEEP_S)
        now = loop.time()
        is_shutting_down = server.started and not any(one.is_serving() for one in server.servers)
        for connection in cast("list[Connection]", list(server.server_state.connections)):
            try:
                connection.sweep(now)
                if is_shutting_down:  # uvicorn tells those that it has when it stops listening, and misses the newest
                    connection.shutdown()
            except Exception:  # a fault in one connection must not stop the deadlines of all others
                logger.exception("the deadlines of a connection could not be kept, and it is closed")
                connection.close()


def find_fault_of_limit() -> str | None:
    """Say in a sentence that this process may open too few files, and what to do; None if it may open enough."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY or most >= _LEAST_FILES:
        return None
    return (
        f"this process may open {most} files and sockets, and needs {_LEAST_FILES} at least: raise the limit with "
        "`ulimit -n 4096` in the shell, LimitNOFILE= in a unit of systemd, or --ulimit nofile=4096 of docker run"
    )


def fit_connections(wanted: int, *, beside: int = 0) -> int:
    """Raise the limit of open files for so many connections; returns how many fit, `wanted` at most.

    Args:
        wanted: connections.
        beside: those of another port.
    """
    others = _OTHER_FILES + beside
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and allowed < wanted + others:
        allowed = wanted + others if most == resource.RLIM_INFINITY else min(wanted + others, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    if allowed == resource.RLIM_INFINITY or allowed >= wanted + others:
        return wanted
    fitting = max(1, allowed - others)
    logger.warning(
        "%d connections are taken, not %d: this process may open %d files; `ulimit -n %d` allows all",
        *(fitting, wanted, allowed, wanted + others),
    )
    return fitting
