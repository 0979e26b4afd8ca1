"""Whether picture requests become OpenTelemetry traces; while they do not, nothing for it is even imported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.shedding import find_picture_route
from service.api.state import ServiceState
from service.telemetry.timing import Stopwatch

if TYPE_CHECKING:
    from service.telemetry.spans import PictureTrace, RequestTrace, Tracing


class TracingError(Exception):
    """Traces cannot be sent as they were asked for."""


@asynccontextmanager
async def open_tracing(tracing: Tracing | None = None, *, enabled: bool) -> AsyncIterator[Tracing | None]:
    """Keep tracing running; at the end, give what was not sent yet a bounded time to leave.

    Args:
        tracing: used as it is, if it is there.
        enabled: else, build one from the OTEL_ variables of the environment.

    Raises:
        TracingError: the extra is not installed, or a variable asks for what is not there.
    """
    if tracing is None and enabled:
        tracing = await asyncio.to_thread(_build)
    try:
        yield tracing
    finally:
        if tracing is not None:
            await asyncio.to_thread(tracing.stop)


def _build() -> Tracing:
    try:
        from service.telemetry.spans import build_tracing  # noqa: PLC0415 - only here, so that without tracing nothing is loaded
    except ModuleNotFoundError as error:
        raise TracingError(
            f"tracing is on, and {error.name} is not installed; pip install 'unihead[tracing]' brings it"
        ) from error
    try:
        return build_tracing()
    except ValueError as error:
        raise TracingError(f"tracing cannot begin: {error}") from error


class TracingMiddleware:
    """Plain ASGI, inside `RequestMiddleware`, around all else that answers pictures; there only when tracing is on."""

    def __init__(self, app: ASGIApp, state: ServiceState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Trace one request about pictures; pass everything else on."""
        tracing, route = self._state.tracing, find_picture_route(scope)
        trace = tracing.begin(scope, route) if tracing is not None and route else None
        if trace is None:
            await self._app(scope, receive, send)
            return
        scope["state"] |= {"trace": trace, "trace_id": trace.trace_id}
        status: int | None = None
        failure: BaseException | None = None

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except BaseException as error:
            failure = error
            raise
        finally:
            trace.finish(status, problem_code=scope["state"].get("problem_code"), failure=failure)


def trace_pictures(scope: Scope, watches: Sequence[Stopwatch]) -> Sequence[PictureTrace | None]:
    """Begin the traces of a request's pictures, one for each stopwatch; None for each where there is no tracing."""
    trace: RequestTrace | None = scope["state"].get("trace")
    return [None] * len(watches) if trace is None else trace.add_pictures(watches)
