"""One picture under way, and the requests that wait for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from service.engine.engine import Engine
from service.engine.postprocess import Answer
from service.engine.prepare import Picture
from service.errors import ClientDisconnected, DeadlineExceeded
from service.telemetry.timing import Stopwatch

if TYPE_CHECKING:
    from service.telemetry.spans import PictureTrace

Finished = TypeVar("Finished")
# To make one answer of a pass that is over: less than handing it to a thread; some; as much as a pass.
Effort: TypeAlias = Literal["little", "some", "pass"]


@dataclass(slots=True, eq=False)
class Passenger(Generic[Finished]):
    """One request.

    Attributes:
        finish: makes its answer from the answer of the pass; called in a worker thread, or where `effort` is little.
        watch: of the request.
        deadline: when the answer is of no use any more; in seconds, as time.monotonic counts.
        future: where the answer goes; done as well when the request has left.
        trace: of the request's picture, if it is traced.
        effort: of `finish`; where it is that of a pass, it waits for a worker of its own, even where the pass is over.
        flight: that it waits for.
    """

    finish: Callable[[Answer, Stopwatch], Finished]
    watch: Stopwatch
    deadline: float
    future: asyncio.Future[Finished]
    trace: PictureTrace | None = None
    effort: Effort = "some"
    flight: Flight | None = None

    def is_waiting(self) -> bool:
        """Whether the request is still there and can be answered in time."""
        return not self.future.done() and time.monotonic() < self.deadline

    async def wait(self, hang_up: Callable[[Callable[[], None]], Callable[[], None]] | None = None) -> Finished:
        """Wait for the answer.

        Args:
            hang_up: given what to call when the client has gone; returns what takes that back.

        Raises:
            DeadlineExceeded: there is none in time.
            ClientDisconnected: `hang_up` called back.
        """
        if self.future.done():
            return self.future.result()
        timer = self.future.get_loop().call_at(self.deadline, self._end, too_late)
        stay = hang_up(partial(self._end, _disconnected)) if hang_up is not None else None
        try:
            return await self.future
        finally:
            timer.cancel()
            if stay is not None:
                stay()

    def _end(self, make_error: Callable[[], Exception]) -> None:
        """On the event loop: stop waiting, if there is no answer yet."""
        _settle(self.future, None, make_error())

    def serve(self, answer: Answer) -> None:
        """Finish the answer in this thread and hand it to the event loop."""
        if self.future.done():
            return
        try:
            finished = self._make(answer)
        except BaseException as error:  # noqa: BLE001 - the request that waits must hear of it, whatever it is
            self.fail(error)
        else:
            self.future.get_loop().call_soon_threadsafe(_settle, self.future, finished, None)

    def _make(self, answer: Answer) -> Finished:
        if self.trace is not None:
            self.trace.origin = answer.origin
        return self.finish(answer, self.watch)

    def serve_from(self, answer: Answer) -> None:
        """Finish likewise, after waiting for the pass of another request."""
        self.watch.lap("queue")
        self.serve(answer)

    def serve_at_once(self, answer: Answer) -> None:
        """On the event loop: finish an answer of little effort from a pass that is over."""
        self.watch.lap("queue")
        try:
            self.future.set_result(self._make(answer))
        except BaseException as error:  # noqa: BLE001 - as in a thread
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Tell the event loop what went wrong."""
        if not isinstance(error, Exception):
            # As a panic in Rust comes to Python: it would fly past everything that makes an answer of it.
            failure = RuntimeError(f"a worker was struck by {type(error).__name__}")
            failure.__cause__, error = error, failure
        self.future.get_loop().call_soon_threadsafe(_settle, self.future, None, error)


def too_late() -> DeadlineExceeded:
    """Build the error of a picture that is late."""
    return DeadlineExceeded("the deadline passed before the answer was ready; X-Request-Timeout-Ms may allow more time")


def _disconnected() -> ClientDisconnected:
    return ClientDisconnected("the client disconnected while its picture waited")


def _settle(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    """On the event loop: give a request its answer, unless it has left meanwhile."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


@dataclass(slots=True, eq=False)
class Flight:
    """One picture under way.

    Attributes:
        key: what makes two requests ask about the same picture and model; empty where nobody else may board.
        engine: the model that will run.
        picture: as it came.
        passengers: the requests that wait, the one that opened the flight first.
        answer: of the pass, once it is over; from the start where only a costly answer is still to be made of it.
        closed: nobody boards any more.
        work: the place in the queue of the workers.
    """

    key: bytes
    engine: Engine
    picture: Picture = field(repr=False)
    passengers: list[Passenger[Any]]
    answer: Answer | None = None
    closed: bool = False
    work: Future[None] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def board(self, passenger: Passenger[Any]) -> bool:
        """Let one more request wait for this picture; False once the pass is over."""
        with self.lock:
            if not self.closed:
                self.passengers.append(passenger)
                passenger.flight = self
            return not self.closed

    def close(self, answer: Answer | None) -> list[Passenger[Any]]:
        """End the flight; returns who is to be served, or told what went wrong."""
        with self.lock:
            self.closed, self.answer = True, answer
            return self.passengers

    def is_wanted(self) -> bool:
        """Whether anybody still waits for this picture and can be answered in time."""
        with self.lock:
            return any(passenger.is_waiting() for passenger in self.passengers)
