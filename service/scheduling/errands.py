"""What takes a worker's time and memory beside pictures, such as reading much JSON; in the same queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from service.errors import NotReady, Overloaded
from service.memory import MemoryBudget, Share
from service.scheduling.admission import Admission
from service.scheduling.job import Made, OnDisconnect, Waiting
from service.scheduling.workers import WorkerPool
from service.telemetry.metrics import Metrics


class Errands:
    """Calls for the workers of a scheduler, after the pictures that came before them.

    Attributes:
        is_stopped: none is taken any more.
    """

    def __init__(self, workers: WorkerPool, admission: Admission, memory: MemoryBudget, metrics: Metrics) -> None:
        """Take what a scheduler has: its workers, who may wait for them, their memory, and where it counts."""
        self.is_stopped = False
        self._workers = workers
        self._admission = admission
        self._memory = memory
        self._metrics = metrics

    async def run(
        self,
        call: Callable[[], Made],
        *,
        work: int,
        timeout_s: float,
        share: Share | None = None,
        on_disconnect: OnDisconnect | None = None,
        again: bool = False,
    ) -> Made:
        """Wait until a worker has called.

        Args:
            call: what is to be done.
            work: bytes of memory that it needs.
            timeout_s: seconds until it is of no use any more.
            share: what the request holds of the budget of memory.
            on_disconnect: how to hear of the client's disconnect.
            again: the request was admitted before, and is not refused now.

        Raises:
            TooManyPixels: there will never be so much memory.
            NotReady, Overloaded, DeadlineExceeded, ClientDisconnected: as in `Scheduler.submit`.
            Exception: what the call raises.
        """
        self.require_running()
        self._memory.require_possible(work, share)
        if again:
            self._admission.readmit()
        else:
            self._admission.admit(timeout_s)
        waiting: Waiting[Made] = Waiting(time.monotonic() + timeout_s, asyncio.get_running_loop().create_future())
        task = self._workers.submit(self._call, call, waiting, work=work, share=share)
        try:
            return await waiting.wait(on_disconnect)
        except MemoryError as error:
            raise self.explain_no_memory() from error
        finally:
            if self._workers.cancel(task):
                self._admission.leave()

    def _call(self, call: Callable[[], Made], waiting: Waiting[Made]) -> None:
        """In a worker thread."""
        self._admission.start()
        try:
            if waiting.is_waiting():
                waiting.hand_over(call)
        finally:
            self._admission.finish(None)

    def require_running(self) -> None:
        """Return if work is still taken.

        Raises:
            NotReady: after the stop.
        """
        if self.is_stopped:
            raise NotReady("the service is stopping; ask another one, or this one after its restart")

    def explain_no_memory(self) -> Overloaded:
        """Count a request for which the system has no memory, and build its error."""
        self._metrics.memory_errors.inc()
        sentence = "the system has no memory for this picture now; send it again, or smaller"
        return Overloaded(sentence, reason="memory", retry_after_s=1)
