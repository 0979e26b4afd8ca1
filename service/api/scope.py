"""What the server and the app share in a request's scope: three keys, the path as the router sees it, disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from starlette.types import Receive, Scope

from service.errors import RequestTimeout

OIP_ROOT = "/v2"
# Of DeepStack and CodeProject.AI.
VISION_ROOT = "/v1"

# In a scope's state, from the server (`server.protocol`); where another server runs the app, none of them is there.
# The error that is the answer, because the request cannot be read.
REQUEST_FAULT = "request_fault"
# The error that is the answer to all but health and metrics, because the connection has no place of its own.
LIMIT_FAULT = "limit_fault"
# The error that ended the body before its end, None until then: then the server looks at the clock, too.
BODY_FAULT = "body_fault"
# The `Disconnect` of the request's connection.
DISCONNECT = "disconnect"
# Of a request about pictures, from the gates: its `Share` of the budget of memory.
SHARE = "share"
# There if its key is yet to be read in its form.
KEY_IN_FORM = "key_in_form"


def find_route_path(scope: Scope) -> str:
    """Return the path, decoded, without the prefix that a proxy or Ray Serve has put the app under."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    if prefix and (path == prefix or path.startswith(f"{prefix}/")):
        return path[len(prefix) :]
    return path


def body_too_late(timeout_s: float) -> RequestTimeout:
    """Build the error of a body that does not come in time."""
    return RequestTimeout(f"the body did not come within {timeout_s:g} s")


class Disconnect:
    """The end of one connection, and who wants to know of it."""

    def __init__(self) -> None:
        self._listeners: set[Callable[[], None]] | None = set()

    def listen(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call back when the client disconnects, at once if it has; returns what takes that back."""
        if self._listeners is None:
            call()
            return lambda: None
        self._listeners.add(call)
        return partial(self._forget, call)

    def tell(self) -> None:
        """Call back everybody: the client has disconnected."""
        listeners, self._listeners = self._listeners or (), None
        for call in listeners:
            call()

    def _forget(self, call: Callable[[], None]) -> None:
        if self._listeners is not None:
            self._listeners.discard(call)


def listen_for_disconnect(scope: Scope, receive: Receive, call: Callable[[], None]) -> Callable[[], None]:
    """Call back when the client of a request disconnects.

    Args:
        scope: of the request.
        receive: of the request, whose whole body has been received.
        call: with no arguments, at most once.

    Returns:
        What takes that back; to be called in any case.
    """
    connection: Disconnect | None = scope["state"].get(DISCONNECT)
    if connection is not None:  # a request costs less without a task
        return connection.listen(call)
    watcher = asyncio.ensure_future(_wait_for_disconnect(receive))
    watcher.add_done_callback(lambda done: None if done.cancelled() else call())
    return partial(_cancel, watcher)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _cancel(watcher: asyncio.Future[None]) -> None:
    watcher.cancel()
