"""Whether the client of a request is still there: told by the connection, for a request costs less without a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from starlette.requests import Request
from starlette.types import Receive

# In a scope's state: the `HangUp` of its connection (see `server.protocol`); other servers that run the app have none.
HANG_UP = "hang_up"


class HangUp:
    """The end of one connection, and who wants to know of it."""

    def __init__(self) -> None:
        self._listeners: set[Callable[[], None]] | None = set()

    def listen(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call back when the client has gone, at once if it has; returns what takes that back."""
        if self._listeners is None:
            call()
            return _do_nothing
        self._listeners.add(call)
        return partial(self._forget, call)

    def tell(self) -> None:
        """Call back everybody: the client has gone."""
        listeners, self._listeners = self._listeners or (), None
        for call in listeners:
            call()

    def _forget(self, call: Callable[[], None]) -> None:
        if self._listeners is not None:
            self._listeners.discard(call)


def listen_for_hang_up(request: Request, call: Callable[[], None]) -> Callable[[], None]:
    """Call back when the client of a request hangs up.

    Args:
        request: its whole body has been received.
        call: with no arguments, at most once.

    Returns:
        What takes that back; to be called in any case.
    """
    connection: HangUp | None = request.scope["state"].get(HANG_UP)
    if connection is not None:
        return connection.listen(call)
    watcher = asyncio.ensure_future(_wait_for_disconnect(request.receive))
    watcher.add_done_callback(lambda done: None if done.cancelled() else call())
    return partial(_cancel, watcher)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _cancel(watcher: asyncio.Future[None]) -> None:
    watcher.cancel()


def _do_nothing() -> None:
    """Nothing is left to take back."""
