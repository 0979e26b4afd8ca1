"""Who gets the next forward pass: requests about the same picture share one, the others queue up.

The first request about a picture opens its flight, those that come while it is under way join it, and those that come
later find its answer in the cache. One worker thread takes a flight from bytes to finished answers, so that a request
changes threads twice and no more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from service.engine.engine import Engine
from service.engine.postprocess import Answer
from service.engine.prepare import Look, Picture, count_bytes, identify
from service.errors import Unavailable
from service.memory import MemoryBudget
from service.pictures.limits import PictureLimits
from service.scheduling.admission import Admission
from service.scheduling.batches import PassRunner
from service.scheduling.cache import Cache
from service.scheduling.errands import Errands
from service.scheduling.flight import Flight, Flights, Waiter
from service.scheduling.job import Job, Made
from service.scheduling.pipeline import Pipeline
from service.scheduling.workers import WorkerPool
from service.telemetry.metrics import CacheResult, Metrics

logger = logging.getLogger("unihead")

# Hashing more than this takes a millisecond, which the event loop does not have.
_LOOK_ON_LOOP_BYTES = 2**18


class Scheduler:
    """One picture, one forward pass, however many ask about it; first come, first served.

    Attributes:
        engine: runs the flights that open from now on; those under way end on the one they began with.
        after_pass: called in a worker thread with each file that has been answered.
        errands: other work for the same workers.
    """

    def __init__(
        self,
        engine: Engine,
        runner: PassRunner,
        metrics: Metrics,
        *,
        admission: Admission,
        memory: MemoryBudget,
        cache: Cache[Answer],
        workers: int,
        limits: PictureLimits,
    ) -> None:
        """Take what a picture passes through.

        Args:
            engine: the model, warm.
            runner: of the passes.
            metrics: where passes, stages, and what was shared or refused are counted.
            admission: how many pictures may wait.
            memory: that pictures need while they are decoded, and answers while they are made.
            cache: of answers.
            workers: threads that take pictures from bytes to answers.
            limits: beyond which a picture is refused before it waits.
        """
        self.after_pass: Callable[[bytes], None] | None = None
        self.engine = engine
        self._metrics = metrics
        self._admission = admission
        self._memory = memory
        self._cache = cache
        self._limits = limits
        self._flights = Flights(cache)
        self._pipeline = Pipeline(runner, metrics, admission, limits)
        self._workers = WorkerPool(workers, name="picture", memory=memory)
        self.errands = Errands(self._workers, admission, memory, metrics)
        # Threads of their own, so that answers from the cache do not queue behind pictures.
        self._side = ThreadPoolExecutor(max(1, workers // 2), thread_name_prefix="cached")
        self._show_model()
        metrics.show_limits(queue=admission.limit, workers=workers)
        metrics.queue_images.set_function(lambda: admission.waiting)
        metrics.worker_images.set_function(lambda: admission.active)
        metrics.cache_bytes.set_function(lambda: cache.bytes_held)
        metrics.stuck_workers.set_function(self._workers.count_stuck)

    async def look(self, picture: Picture, *, fresh: bool) -> Look:
        """Look at a picture before anything waits for it.

        Raises:
            NotReady: after `stop`.
            EmptyBody, UnsupportedImage, TooManyPixels, DamagedImage, PictureTooCostly: it is refused.
        """
        self.errands.require_running()
        look = partial(identify, picture, self._limits, fresh=fresh)
        if isinstance(picture, bytes) and len(picture) <= _LOOK_ON_LOOP_BYTES:
            return look()
        return await asyncio.get_running_loop().run_in_executor(self._side, look)

    async def submit(self, job: Job[Made]) -> tuple[Made, CacheResult]:
        """Ask about one picture; a request that leaves fails nobody else.

        Returns:
            What the job's `finish` made, and where the pass came from.

        Raises:
            NotReady: after `stop`.
            Overloaded: the queue is full, or the wait would be longer than the timeout; or the system has no memory.
            DeadlineExceeded: the timeout is over.
            ClientDisconnected: `on_disconnect` called back.
            TooManyPixels: there will never be the memory that it needs.
            EmptyBody, UnsupportedImage, TooManyPixels, DamagedImage, PictureTooCostly: mostly before it is queued.
        """
        deadline = time.monotonic() + job.timeout_s
        look = job.look or await self.look(job.picture, fresh=job.fresh)
        self.errands.require_running()
        waiter = Waiter(
            deadline,
            asyncio.get_running_loop().create_future(),
            job.finish,
            job.watch,
            trace=job.trace,
            effort=job.effort,
            making=job.making,
            share=job.share,
        )
        result = self._share_or_open(look, job.owner, job.picture, waiter)
        self._metrics.count_cache_result(result)
        if job.trace is not None:
            job.trace.cache_result = result
        try:
            return await waiter.wait(job.on_disconnect), result
        except MemoryError as error:
            raise self.errands.explain_no_memory() from error
        except BaseException:
            self._abandon(waiter.flight)
            raise
        finally:
            waiter.flight = None  # a cycle would keep the picture

    def _share_or_open(self, look: Look, owner: str, picture: Picture, waiter: Waiter[Any]) -> CacheResult:
        engine = self.engine
        need = max(look.estimate_bytes(engine.contract.input_size), waiter.making)
        self._memory.require_possible(need, waiter.share)
        if not look.digest:
            self._open(Flight(b"", engine, picture, [waiter], need))
            return "bypass"
        key = look.digest + owner.encode() + engine.sha256.encode()
        flight = self._flights.find(key)
        if flight is not None and flight.join(waiter):
            return "coalesced"
        answer = self._cache.get(key) if flight is None else flight.answer
        if answer is not None:
            self._serve(waiter, answer)
            return "hit" if flight is None else "coalesced"
        self._open(Flight(key, engine, picture, [waiter], need))
        return "miss"

    def _serve(self, waiter: Waiter[Any], answer: Answer) -> None:
        """Answer from a pass that is over; after the queue where that takes a worker's time, or memory is short."""
        if waiter.effort == "little":
            waiter.serve_at_once(answer)
            return
        # Who asks for no more than is free must not pass by those who wait for more.
        if waiter.effort == "some" and not self._workers.is_short:
            hold = self._memory.begin(waiter.making, waiter.share)
            if hold is not None:
                self._side.submit(waiter.serve_from, answer).add_done_callback(lambda _: hold.close())
                return
        self._open(Flight(b"", self.engine, b"", [waiter], waiter.making, answer))

    def _open(self, flight: Flight) -> None:
        (waiter,) = flight.waiters
        self._admission.admit(waiter.deadline - time.monotonic())
        if waiter.share is not None:
            flight.hold = waiter.share.move_body(count_bytes(flight.picture))
        self._flights.open(flight)
        waiter.flight = flight
        flight.work = self._workers.submit(self._run, flight, work=flight.need, share=waiter.share)

    def _run(self, flight: Flight) -> None:
        """In a worker thread: take a picture from bytes to everybody's answers."""
        started = time.monotonic()
        self._admission.start()
        took_s: float | None = None
        has_pass = flight.answer is None
        try:
            answer = self._pipeline.run(flight)
        except BaseException as error:  # noqa: BLE001 - all who wait must hear of it, whatever it is
            self._flights.fail(flight, error)
        else:
            self._serve_all(self._flights.land(flight, answer), answer)
            # Of a picture that was stuck, others waited only until a spare worker came.
            took_s = min(time.monotonic() - started, self._workers.patience_s)
            if has_pass and self.after_pass is not None and isinstance(flight.picture, bytes):
                self.after_pass(flight.picture)
        finally:
            if flight.hold is not None:
                flight.hold.close()
            self._admission.finish(took_s)

    def _serve_all(self, waiters: Sequence[Waiter[Any]], answer: Answer) -> None:
        """In a worker thread: the cheap answers first; of the costly ones, only that of who opened the flight."""
        leader, *others = waiters
        if leader.effort != "pass":
            leader.serve(answer)
        for waiter in others:
            hold = None if waiter.effort == "pass" else self._memory.begin(waiter.making, waiter.share)
            if hold is None:
                waiter.future.get_loop().call_soon_threadsafe(self._requeue, waiter, answer)
            else:
                waiter.serve_from(answer)
                hold.close()
        if leader.effort == "pass":
            leader.serve(answer)

    def _requeue(self, waiter: Waiter[Any], answer: Answer) -> None:
        if waiter.future.done():
            return
        try:
            self.errands.require_running()
            self._serve(waiter, answer)
        except Unavailable as refusal:
            waiter.fail(refusal)

    def _abandon(self, flight: Flight | None) -> None:
        """Give the place in the queue back if nobody waits for a picture any more that no worker has taken yet."""
        if flight is None or flight.work is None or flight.is_wanted():
            return
        # A cancelled future can be cancelled again: the second of two requests that leave together must not count.
        if not flight.work.cancelled() and self._workers.cancel(flight.work):
            if flight.hold is not None:
                flight.hold.close()
            self._admission.leave()
            self._metrics.dropped_images.inc()
            self._flights.forget(flight)

    def shed(self) -> None:
        """Refuse a picture whose body has not been read yet, if that is what mostly happens; see `Admission.shed`."""
        self._admission.shed()

    def swap(self, engine: Engine) -> bool:
        """Let another model answer from now on; flights under way end on the one that they began with.

        Returns:
            False, and nothing changes, if it is of the same file.
        """
        if engine.sha256 == self.engine.sha256:
            return False
        self.engine = engine
        self._cache.clear()
        self._show_model()
        return True

    def _show_model(self) -> None:
        contract = self.engine.contract
        self._metrics.show_model(
            name=contract.name, version=contract.version, preset=contract.preset, sha256=self.engine.sha256
        )

    def relieve_workers(self) -> None:
        """Let spare threads take the places of those that are stuck; to be called a few times a second."""
        relieved = self._workers.relieve()
        if relieved:
            self._metrics.stuck_images.inc(relieved)
            logger.warning(
                "%d pictures hold a worker for more than %g s; spare ones take over", relieved, self._workers.patience_s
            )

    async def stop(self) -> None:
        """Take no more pictures; wait for those that were taken and do not hang."""
        self.errands.is_stopped = True
        await asyncio.to_thread(self._workers.shutdown)
        await asyncio.to_thread(self._side.shutdown)
