"""What lies in a file, read anew while the service runs: a model, or keys; one that cannot be used changes nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.machine import give_back_freed_memory
from service.telemetry.metrics import Outcome

logger = logging.getLogger("unihead")

Loaded = TypeVar("Loaded")
_STOP_S = 2


@dataclass(frozen=True, slots=True)
class Reload:
    """How one reload ended.

    Attributes:
        number: how many there have been, this one included.
        outcome: what happened to what the file holds now.
        reason: why that was refused; empty otherwise.
        started_at: when it began to read; in seconds since 1970, as the next one.
        finished_at: when it ended.
    """

    number: int
    outcome: Outcome
    reason: str
    started_at: float
    finished_at: float


@dataclass(slots=True, eq=False, kw_only=True)
class Reloader(Generic[Loaded]):
    """Puts what a file holds in the place of what it held before, one reload at a time.

    Attributes:
        name: of what lies in the file, for the log.
        load: reads the file, in a thread.
        timeout_s: seconds that it may take; who still waits for a disk then is left behind, and reads for nobody.
        swap: puts what was read in place, on the event loop; False if that is in force already.
        describe: what is in force, for the log.
        expected: what `load` raises of a file that cannot be used; anything else is logged with its traceback.
        count: told how each reload ended.
        last: how the latest reload ended; None before the first.
    """

    name: str
    load: Callable[[], Loaded]
    timeout_s: float
    swap: Callable[[Loaded], bool]
    describe: Callable[[], str]
    expected: type[Exception]
    count: Callable[[Outcome], None]
    last: Reload | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _next: asyncio.Task[Reload] | None = None
    _thread: threading.Thread | None = None

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
            started_at = time.time()
            outcome, reason = await self._try()
            self.count(outcome)
            self.last = Reload(self.last.number + 1 if self.last else 1, outcome, reason, started_at, time.time())
            if outcome == "refused":
                logger.error("%s: the new file was refused, nothing changes: %s", self.name, reason)
            else:
                logger.info("%s reloaded: %s, in force: %s", self.name, outcome, self.describe())
            # What loading took, and the model before the last: hundreds of megabytes after some reloads.
            await asyncio.to_thread(give_back_freed_memory)
            return self.last

    async def _try(self) -> tuple[Outcome, str]:
        try:
            loaded = await asyncio.wait_for(self._begin_loading(), self.timeout_s)
        except self.expected as error:
            return "refused", str(error)
        except TimeoutError:
            return "refused", f"it could not be read within {self.timeout_s:g} s"
        except Exception as error:  # what is in force must go on, whatever a file does to a parser
            logger.exception("the new file broke what reads the %s", self.name)
            return "refused", f"{type(error).__name__}: {error}"
        return ("swapped" if self.swap(loaded) else "unchanged"), ""

    def _begin_loading(self) -> asyncio.Future[Loaded]:
        """Read in a thread of its own: one that never ends takes no place from others, and keeps no process alive."""
        done: Future[Loaded] = Future()
        done.set_running_or_notify_cancel()  # who waits no more cannot take back what a thread has begun

        def read() -> None:
            try:
                done.set_result(self.load())
            except BaseException as error:  # noqa: BLE001 - who waits must hear of it, whatever it is
                done.set_exception(error)

        self._thread = threading.Thread(target=read, name=f"reload of {self.name}", daemon=True)
        self._thread.start()
        return asyncio.wrap_future(done)

    async def stop(self) -> None:
        """Let what is being read be read to its end, for a moment: native code should not outlive the interpreter."""
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _STOP_S)
