"""How messages get in: so few at once that what they may grow to fits, and whoever is slow makes room for others.

gRPC hands a message over whole, and does not say before how long it is: while it comes, it counts as the longest that
there may be. What has no place waits at its client, but for the first 64 kB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from service.errors import RequestTimeout
from service.memory import MemoryBudget, Share

# A client that sends while others wait has so long.
_PATIENCE_S = 1.0
_MOST_PLACES = 64


class Reading:
    """Places for messages on their way in.

    Attributes:
        places: how many.
    """

    def __init__(
        self, memory: MemoryBudget, *, most_bytes: int, timeout_s: float, patience_s: float = _PATIENCE_S
    ) -> None:
        """Find out how many fit into a half of what bodies may have, so that the other port's find room, too.

        Args:
            memory: the budget.
            most_bytes: of a message.
            timeout_s: seconds that it may take, waiting for a place included.
            patience_s: seconds after which it makes room if another waits.
        """
        self.places = max(1, min(_MOST_PLACES, memory.most_bodies // 2 // most_bytes))
        self._most_bytes, self._timeout_s, self._patience_s = most_bytes, timeout_s, patience_s
        self._free = asyncio.Semaphore(self.places)
        self._waiting = 0
        # When each that comes in now has to be there, by when it began.
        self._limits: dict[asyncio.Timeout, float] = {}

    async def read(self, receive: Callable[[], Awaitable[bytes | None]], share: Share) -> bytes | None:
        """Receive a message, and let a share hold its bytes.

        Args:
            receive: gives the message; None where there is none.
            share: of the request.

        Raises:
            RequestTimeout: it does not come in time.
            Overloaded: it might not fit into the budget of memory.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        try:
            await self._take_place(deadline)
            try:
                return await self._receive(receive, share, deadline)
            finally:
                self._free.release()
        except TimeoutError as error:
            raise RequestTimeout("the message did not come in time") from error

    async def _take_place(self, deadline: float) -> None:
        if not self._free.locked():
            await self._free.acquire()  # at once
            return
        self._waiting += 1
        for limit, began in self._limits.items():
            limit.reschedule(min(limit.when() or deadline, began + self._patience_s))
        try:
            async with asyncio.timeout_at(deadline):
                await self._free.acquire()
        finally:
            self._waiting -= 1

    async def _receive(
        self, receive: Callable[[], Awaitable[bytes | None]], share: Share, deadline: float
    ) -> bytes | None:
        share.take_body(self._most_bytes)
        now = asyncio.get_running_loop().time()
        async with asyncio.timeout_at(min(deadline, now + self._patience_s) if self._waiting else deadline) as limit:
            self._limits[limit] = now
            try:
                message = await receive()
            finally:
                del self._limits[limit]
                share.keep_body(0)
        if message is not None:
            share.keep_body(len(message))
        return message
