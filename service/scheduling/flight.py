"""Pictures under way, and the requests that wait for them; the word is that of Go's `singleflight`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from service.engine.engine import Engine
from service.engine.postprocess import Answer
from service.engine.prepare import Picture
from service.memory import Hold, Share
from service.scheduling.cache import Cache
from service.scheduling.job import Effort, Made, Waiting
from service.telemetry.timing import Stopwatch

if TYPE_CHECKING:
    from service.telemetry.spans import PictureTrace

# Of an answer in the cache: keys, objects and array headers.
_OVERHEAD_BYTES = 2048


@dataclass(slots=True, eq=False)
class Waiter(Waiting[Made]):
    """One request that waits for a pass; without its picture, which a flight that is stuck may keep longer than it.

    Attributes:
        finish, watch, trace, effort, making, share: of its job.
        flight: that it waits for.
    """

    finish: Callable[[Answer, Stopwatch], Made]
    watch: Stopwatch
    trace: PictureTrace | None = None
    effort: Effort = "some"
    making: int = 0
    share: Share | None = None
    flight: Flight | None = None

    def serve(self, answer: Answer) -> None:
        """Finish the answer in this thread and hand it to the event loop."""
        self.hand_over(partial(self._make, answer))

    def _make(self, answer: Answer) -> Made:
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


@dataclass(slots=True, eq=False)
class Flight:
    """One picture under way.

    Attributes:
        key: what makes two requests ask about the same picture and model; empty where nobody else may join.
        engine: the model that will run.
        picture: as it came.
        waiters: the requests that wait, the one that opened the flight first.
        need: bytes of memory that a worker takes for it.
        answer: of the pass, once it is over; from the start where only an answer is still to be made of it.
        closed: nobody joins any more.
        work: the place in the queue of the workers.
        hold: the picture's bytes in the budget of memory, which it may keep longer than the request that brought it.
    """

    key: bytes
    engine: Engine
    picture: Picture = field(repr=False)
    waiters: list[Waiter[Any]]
    need: int = 0
    answer: Answer | None = None
    closed: bool = False
    work: Future[None] | None = None
    hold: Hold | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def join(self, waiter: Waiter[Any]) -> bool:
        """Let one more request wait for this picture; False once the pass is over."""
        with self.lock:
            if not self.closed:
                self.waiters.append(waiter)
                waiter.flight = self
            return not self.closed

    def close(self, answer: Answer | None) -> list[Waiter[Any]]:
        """End the flight; returns who is to be served, or told what went wrong."""
        with self.lock:
            self.closed, self.answer = True, answer
            return self.waiters

    def is_wanted(self) -> bool:
        """Whether anybody still waits for this picture and can be answered in time."""
        with self.lock:
            return any(waiter.is_waiting() for waiter in self.waiters)

    def close_unless_wanted(self) -> bool:
        """End the flight if nobody waits for it; whoever comes next opens another. Returns whether it has ended."""
        with self.lock:
            self.closed = not any(waiter.is_waiting() for waiter in self.waiters)
            return self.closed


class Flights:
    """A table of the flights that others may join; one that lands leaves its answer in the cache."""

    def __init__(self, cache: Cache[Answer]) -> None:
        self._cache = cache
        self._by_key: dict[bytes, Flight] = {}

    def find(self, key: bytes) -> Flight | None:
        """Return the flight about this picture and model. Ask before the cache: then one of the two has the answer."""
        return self._by_key.get(key)

    def open(self, flight: Flight) -> None:
        """Let others find the flight, if it has a key."""
        if flight.key:
            self._by_key[flight.key] = flight

    def land(self, flight: Flight, answer: Answer) -> list[Waiter[Any]]:
        """In a worker thread: keep the answer, so that nobody opens another flight; returns who waits for it."""
        waiters = flight.close(answer)
        if flight.key:
            self._cache.put(flight.key, answer, answer.prediction.nbytes + _OVERHEAD_BYTES)
            self._by_key.pop(flight.key, None)
        return waiters

    def fail(self, flight: Flight, error: BaseException) -> None:
        """In a worker thread: tell all who wait what went wrong; the event loop forgets the flight."""
        waiters = flight.close(None)
        for waiter in waiters:
            waiter.fail(error)
        waiters[0].future.get_loop().call_soon_threadsafe(self.forget, flight)

    def forget(self, flight: Flight) -> None:
        """Let nobody find the flight any more."""
        if self._by_key.get(flight.key) is flight:
            del self._by_key[flight.key]
