"""How late the event loop is: what every request waits before anybody looks at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_EVERY_S = 0.25


async def watch_lag(observe: Callable[[float], None]) -> None:
    """Sleep and wake for ever; tell `observe` by how many seconds each waking came late."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _EVERY_S
        await asyncio.sleep(_EVERY_S)
        observe(max(0.0, loop.time() - due))
