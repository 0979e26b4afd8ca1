"""Who gets the next forward pass: requests about the same picture share one, the others queue up.

A request is a `Passenger`, a picture under way a `Flight`. The first request about a picture opens its flight, those
that come while it is under way board it, and those that come later find its answer in the cache. One worker thread
takes a flight from bytes to finished answers, so that a request changes threads twice and no more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from service.engine.engine import Engine
from service.engine.postprocess import Answer
from service.engine.prepare import Picture, identify, prepare
from service.errors import NotReady, Unavailable
from service.pictures.limits import PictureLimits
from service.scheduling.admission import Admission
from service.scheduling.batches import PassRunner
from service.scheduling.cache import Cache
from service.scheduling.flight import Effort, Finished, Flight, Passenger, too_late
from service.scheduling.workers import WorkerPool
from service.telemetry.metrics import CacheResult, Metrics
from service.telemetry.timing import SHARED_STAGES, Stopwatch

if TYPE_CHECKING:
    from service.telemetry.spans import PictureTrace

logger = logging.getLogger("unihead")

# Hashing more than this takes a millisecond, which the event loop does not have.
_LOOK_ON_LOOP_BYTES = 2**18
# Of an answer in the cache: keys, objects and array headers.
_OVERHEAD_BYTES = 2048


class Scheduler:
    """One picture, one forward pass, however many ask about it; first come, first served.

    Attributes:
        engine: runs the flights that open from now on; those under way end on the one they began with.
        after_pass: called in a worker thread with each file that has been answered.
    """

    def __init__(
        self,
        engine: Engine,
        runner: PassRunner,
        metrics: Metrics,
        *,
        admission: Admission,
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
            cache: of answers.
            workers: threads that take pictures from bytes to answers.
            limits: beyond which a picture is refused before it waits.
        """
        self.after_pass: Callable[[bytes], None] | None = None
        self.engine = engine
        self._runner = runner
        self._metrics = metrics
        self._admission = admission
        self._cache = cache
        self._limits = limits
        self._flights: dict[bytes, Flight] = {}
        self._workers = WorkerPool(workers, name="picture")
        # Threads of their own, so that answers from the cache do not queue behind pictures.
        self._side = ThreadPoolExecutor(max(1, workers // 2), thread_name_prefix="cached")
        self._stopped = False
        self._show_model()
        metrics.show_limits(queue=admission.limit, workers=workers)
        metrics.queue_images.set_function(lambda: admission.waiting)
        metrics.worker_images.set_function(lambda: admission.active)
        metrics.cache_bytes.set_function(lambda: cache.bytes_held)
        metrics.stuck_workers.set_function(self._workers.count_stuck)

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
        self._stopped = True
        await asyncio.to_thread(self._workers.shutdown)
        await asyncio.to_thread(self._side.shutdown)

    async def submit(
        self,
        picture: Picture,
        finish: Callable[[Answer, Stopwatch], Finished],
        *,
        watch: Stopwatch,
        timeout_s: float,
        fresh: bool = False,
        hang_up: Callable[[Callable[[], None]], Callable[[], None]] | None = None,
        trace: PictureTrace | None = None,
        effort: Effort = "some",
    ) -> tuple[Finished, CacheResult]:
        """Ask about one picture; a request that leaves fails nobody else.

        Args:
            picture: as it came.
            finish: makes this request's answer, in a worker thread, from the answer of the pass.
            watch: of the request; `finish` gets it with the stages before lapped.
            timeout_s: seconds until the answer is of no use any more.
            fresh: neither take a pass from others nor leave one to them.
            hang_up: given what to call when the client has gone; returns what takes that back.
            trace: gets where the pass came from, and the pass itself if this request begins it.
            effort: of `finish`; as much as a pass waits in the queue like one, wherever the pass comes from.

        Returns:
            What `finish` made, and where the pass came from.

        Raises:
            NotReady: after `stop`.
            Overloaded: the queue is full, or the wait would be longer than the timeout.
            DeadlineExceeded: the timeout is over.
            ClientDisconnected: `hang_up` called back.
            EmptyBody, UnsupportedImage, TooManyPixels, DamagedImage, PictureTooCostly: mostly before it is queued.
        """
        deadline = time.monotonic() + timeout_s
        loop, look = asyncio.get_running_loop(), partial(identify, picture, self._limits, fresh=fresh)
        on_loop = isinstance(picture, bytes) and len(picture) <= _LOOK_ON_LOOP_BYTES
        key = look() if on_loop else await loop.run_in_executor(self._side, look)
        self._require_running()
        passenger = Passenger(finish, watch, deadline, loop.create_future(), trace, effort)
        result = self._take(passenger, key, picture)
        self._metrics.count_cache_result(result)
        if trace is not None:
            trace.cache_result = result
        try:
            return await passenger.wait(hang_up), result
        except BaseException:
            self._abandon(passenger.flight)
            raise
        finally:
            passenger.flight = None  # a cycle would keep the picture

    def _take(self, passenger: Passenger[Any], name: bytes, picture: Picture) -> CacheResult:
        """Find an answer or a flight to board, or open one."""
        engine = self.engine
        if not name:
            self._open_flight(Flight(name, engine, picture, [passenger]))
            return "bypass"
        key = name + engine.sha256.encode()
        # Before the cache: a flight that lands meanwhile is in the cache before it is gone from here.
        flight = self._flights.get(key)
        if flight is not None and flight.board(passenger):
            return "coalesced"
        answer = self._cache.get(key) if flight is None else flight.answer
        if answer is not None:
            self._serve_beside(answer, passenger, picture)
            return "hit" if flight is None else "coalesced"
        self._open_flight(Flight(key, engine, picture, [passenger]))
        return "miss"

    def _serve_beside(self, answer: Answer, passenger: Passenger[Any], picture: Picture) -> None:
        """Answer from a pass that is over; after the queue where that takes a worker's time."""
        if passenger.effort == "pass":
            self._open_flight(Flight(b"", self.engine, picture, [passenger], answer))
        elif passenger.effort == "little":
            passenger.serve_at_once(answer)
        else:
            self._side.submit(passenger.serve_from, answer)

    def _open_flight(self, flight: Flight) -> None:
        (passenger,) = flight.passengers
        self._admission.admit(passenger.deadline - time.monotonic())
        if flight.key:
            self._flights[flight.key] = flight
        flight.work, passenger.flight = self._workers.submit(self._fly, flight), flight

    def _abandon(self, flight: Flight | None) -> None:
        """Give the place in the queue back if nobody waits for a picture any more that no worker has taken yet."""
        if flight is None or flight.work is None or flight.is_wanted():
            return
        # A cancelled future can be cancelled again: the second of two requests that leave together must not count.
        if not flight.work.cancelled() and flight.work.cancel():
            self._admission.leave()
            self._metrics.dropped_images.inc()
            self._forget(flight)

    def _forget(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    def _land(self, flight: Flight, answer: Answer) -> list[Passenger[Any]]:
        """In a worker thread: keep the answer, so that nobody opens another flight; returns who waits for it."""
        passengers = flight.close(answer)
        if flight.key:
            self._cache.put(flight.key, answer, answer.prediction.nbytes + _OVERHEAD_BYTES)
            self._flights.pop(flight.key, None)
        return passengers

    def _fly(self, flight: Flight) -> None:
        """In a worker thread: take a picture from bytes to everybody's answers."""
        started = time.monotonic()
        self._admission.start()
        took_s: float | None = None
        has_pass, leader = flight.answer is None, flight.passengers[0]
        try:
            answer = self._answer(flight, leader)
        except BaseException as error:  # noqa: BLE001 - all who wait must hear of it, whatever it is
            for passenger in flight.close(None):
                passenger.fail(error)
            leader.future.get_loop().call_soon_threadsafe(self._forget, flight)
        else:
            self._serve_all(self._land(flight, answer), answer, flight.picture)
            # Of a picture that was stuck, others waited only until a spare worker came.
            took_s = min(time.monotonic() - started, self._workers.patience_s)
            if has_pass and self.after_pass is not None and isinstance(flight.picture, bytes):
                self.after_pass(flight.picture)
        finally:
            self._admission.finish(took_s)

    def _answer(self, flight: Flight, leader: Passenger[Any]) -> Answer:
        watch, contract = leader.watch, flight.engine.contract
        watch.lap("queue")
        self._require_wanted(flight)
        if flight.answer is not None:
            return flight.answer
        square, place = prepare(flight.picture, contract, watch, limits=self._limits)
        self._require_wanted(flight)
        prediction, shared_by = self._runner.run(flight.engine, square, watch, alone=self._admission.is_alone())
        self._metrics.observe_shared({stage: watch.timings_ms[stage] for stage in SHARED_STAGES})
        trace, version = leader.trace, contract.version
        origin = None if trace is None else trace.record_pass(model_version=version, batch_size=shared_by)
        return Answer(prediction, place, contract, origin)

    def _serve_all(self, passengers: Sequence[Passenger[Any]], answer: Answer, picture: Picture) -> None:
        """In a worker thread: those first whose answers take no time; of the costly ones, only who began the flight."""
        leader, *others = passengers
        if leader.effort != "pass":
            leader.serve(answer)
        for passenger in others:
            if passenger.effort == "pass":
                passenger.future.get_loop().call_soon_threadsafe(self._requeue, answer, passenger, picture)
            else:
                passenger.serve_from(answer)
        if leader.effort == "pass":
            leader.serve(answer)

    def _requeue(self, answer: Answer, passenger: Passenger[Any], picture: Picture) -> None:
        if passenger.future.done():
            return
        try:
            self._require_running()
            self._serve_beside(answer, passenger, picture)
        except Unavailable as refusal:
            passenger.fail(refusal)

    def _require_running(self) -> None:
        if self._stopped:
            raise NotReady("the service is stopping; ask another one, or this one after its restart")

    def _require_wanted(self, flight: Flight) -> None:
        if not flight.is_wanted():
            self._metrics.dropped_images.inc()
            raise too_late()
