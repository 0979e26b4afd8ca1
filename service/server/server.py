"""How the service leaves: not ready any more, then no new connections, then what was asked is answered, then out."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

logger = logging.getLogger("unihead")

# Seconds that requests under way have; proxies and orchestrators are told more (docs/deploy.md).
DRAIN_S = 20
# Seconds after that in which threads end and files are closed.
_CLOSE_S = 4
_LAST_WORD_S = 1
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class LeavingServer(uvicorn.Server):
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
