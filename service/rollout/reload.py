"""What lies in a file, read anew while the service runs: a model, or keys; one that cannot be used changes nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.machine import give_back_freed_memory
from service.telemetry.metrics import Outcome

logger = logging.getLogger("unihead")

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class Reload:
    """How one reload ended.

    Attributes:
        number: how many there have been, this one included.
        outcome: what happened to what the file holds now.
        reason: why that was refused; empty otherwise.
        finished_at: seconds since 1970.
    """

    number: int
    outcome: Outcome
    reason: str
    finished_at: float


@dataclass(slots=True, eq=False, kw_only=True)
class Reloader(Generic[Loaded]):
    """Puts what a file holds in the place of what it held before, one reload at a time.

    Attributes:
        name: of what lies in the file, for the log.
        load: reads the file, in a thread.
        swap: puts what was read in place, on the event loop; False if that is in force already.
        describe: what is in force, for the log.
        expected: what `load` raises of a file that cannot be used; anything else is logged with its traceback.
        count: told how each reload ended.
        last: how the latest reload ended; None before the first.
    """

    name: str
    load: Callable[[], Loaded]
    swap: Callable[[Loaded], bool]
    describe: Callable[[], str]
    expected: type[Exception]
    count: Callable[[Outcome], None]
    last: Reload | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _next: asyncio.Task[Reload] | None = None

    async def reload(self) -> Reload:
        """Read the file anew and swap, or keep what there is; never raises because of the file.

        Whoever asks while one reload runs shares the next one, which begins when that is over: a hundred requests at
        once are two reloads, and each has seen the file as it was after it was asked for.
        """
        if self._next is None:
            self._next = asyncio.ensure_future(self._reload())
        return await asyncio.shield(self._next)

    async def _reload(self) -> Reload:
        async with self._lock:
            self._next = None
            outcome, reason = await self._try()
            self.count(outcome)
            self.last = Reload(self.last.number + 1 if self.last else 1, outcome, reason, time.time())
            if outcome == "refused":
                logger.error("%s: the new file was refused, nothing changes: %s", self.name, reason)
            else:
                logger.info("%s reloaded: %s, in force: %s", self.name, outcome, self.describe())
            # What loading took, and the model before the last: hundreds of megabytes after some reloads.
            await asyncio.to_thread(give_back_freed_memory)
            return self.last

    async def _try(self) -> tuple[Outcome, str]:
        try:
            loaded = await asyncio.to_thread(self.load)
        except self.expected as error:
            return "refused", str(error)
        except Exception as error:  # what is in force must go on, whatever a file does to a parser
            logger.exception("the new file broke what reads the %s", self.name)
            return "refused", f"{type(error).__name__}: {error}"
        return ("swapped" if self.swap(loaded) else "unchanged"), ""
