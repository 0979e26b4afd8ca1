"""Whether picture requests become OpenTelemetry traces; while they do not, nothing for it is even imported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.telemetry.spans import Tracing


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
