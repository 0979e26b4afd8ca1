"""The gRPC port, from its first call to the last: bound before the model is loaded, drained beside the other port."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from service.api.grpc.calls import Front
from service.api.grpc.core import MOST_CONNECTIONS, Core, choose_options
from service.api.grpc.health import CHECK, WATCH, Watchers
from service.api.grpc.methods import list_methods
from service.api.grpc.reading import Reading
from service.api.state import ServiceState

logger = logging.getLogger("unihead")

_LOOK_EVERY_S = 0.05
# In which a cancelled call is answered UNAVAILABLE.
_CANCEL_S = 1


def _tells_no_metadata(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Invalid encoding on")


class GrpcServer:
    """Answers calls about one app's pictures, beside its HTTP port.

    Attributes:
        MOST_CONNECTIONS: that it keeps open at once.
        port: that it listens on.
    """

    MOST_CONNECTIONS = MOST_CONNECTIONS

    def __init__(self, state: ServiceState) -> None:
        """Take the port of the settings; in the event loop of the service.

        Raises:
            OSError: it is taken, or the address is none.
        """
        settings = state.settings
        reading = Reading(state.memory, most_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)
        self._front = Front(state, reading)
        handlers = {method.path: self._front.make_handler(method) for method in (*list_methods(), CHECK)}
        handlers[WATCH] = Watchers(state, reading).make_handler()
        self._core = Core(choose_options(settings), handlers, on_unknown=self._front.count_unknown)
        self.port = self._front.port = self._core.listen(settings.host, settings.grpc_port or 0)
        # It would write metadata that is no UTF-8 into the log, the key of an Authorization among it.
        logging.getLogger("grpc._cython.cygrpc").addFilter(_tells_no_metadata)

    async def start(self) -> None:
        """Begin to take calls."""
        await self._core.start()

    async def drain(self, timeout_s: float, is_forced: Callable[[], bool]) -> None:
        """Take no more calls and answer those in flight; those that take longer are answered UNAVAILABLE.

        Args:
            timeout_s: seconds that they have.
            is_forced: whether nobody waits any longer.
        """
        stopping = asyncio.ensure_future(self._core.shutdown(timeout_s + _CANCEL_S))
        running, deadline = self._front.running, time.monotonic() + timeout_s
        while running and time.monotonic() < deadline and not is_forced():  # noqa: ASYNC110 - a signal handler ends it
            await asyncio.sleep(_LOOK_EVERY_S)
        if running:
            logger.warning("shutting down: %d calls in flight were cancelled", len(running))
            self._front.cancel()
            await asyncio.wait(set(running), timeout=_CANCEL_S)
        await self._core.shutdown(None)
        await stopping
