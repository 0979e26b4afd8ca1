"""Pictures under way, and the requests that wait for them; the word is that of Go's `singleflight`."""

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
from service.scheduling.cache import Cache
from service.telemetry.timing import Stopwatch

if TYPE_CHECKING:
    from service.telemetry.spans import PictureTrace

Made = TypeVar("Made")
# To make one answer of a pass that is over: less than handing it to a thread; some; as much as a pass.
Effort: TypeAlias = Literal["little", "some", "pass"]
# Given what to call when the client disconnects; returns what takes that back.
OnDisconnect: TypeAlias = Callable[[Callable[[], None]], Callable[[], None]]

# Of an answer in the cache: keys, objects and array headers.
_OVERHEAD_BYTES = 2048


# Not frozen: there is one for each picture, and a frozen one takes the event loop 0.7 us more.
@dataclass(slots=True, eq=False)
class Job(Generic[Made]):
    """What one request asks about one picture.

    Attributes:
        picture: as it came.
        finish: makes the answer from that of the pass; called in a worker thread, or where `effort` is little.
        watch: of the request; `finish` gets it with the stages before lapped.
        timeout_s: seconds until the answer is of no use any more.
        fresh: neither take a pass from others nor leave one to them.
        owner: whose passes it shares; requests of others neither find them nor can tell that there are any.
        effort: of `finish`; where it is that of a pass, it waits for a worker of its own, even where the pass is over.
        trace: gets where the pass came from, and the pass itself if this request begins it.
        on_disconnect: how to hear of the client's disconnect.
    """

    picture: Picture
    finish: Callable[[Answer, Stopwatch], Made]
    watch: Stopwatch
    timeout_s: float
    fresh: bool = False
    owner: str = ""
    effort: Effort = "some"
    trace: PictureTrace | None = None
    on_disconnect: OnDisconnect | None = None


@dataclass(slots=True, eq=False)
class Waiter(Generic[Made]):
    """One request that waits; without its picture, which a flight that is stuck would keep long after the request.

    Attributes:
        finish, watch, trace, effort: of its job.
        deadline: when the answer is of no use any more; in seconds, as time.monotonic counts.
        future: where the answer goes; done as well when the request has left.
        flight: that it waits for.
    """

    finish: Callable[[Answer, Stopwatch], Made]
    watch: Stopwatch
    deadline: float
    future: asyncio.Future[Made]
    trace: PictureTrace | None = None
    effort: Effort = "some"
    flight: Flight | None = None

    def is_waiting(self) -> bool:
        """Whether the request is still there and can be answered in time."""
        return not self.future.done() and time.monotonic() < self.deadline

    async def wait(self, on_disconnect: OnDisconnect | None) -> Made:
        """Wait for the answer.

        Raises:
            DeadlineExceeded: there is none in time.
            ClientDisconnected: `on_disconnect` called back.
        """
        if self.future.done():
            return self.future.result()
        timer = self.future.get_loop().call_at(self.deadline, self._end, too_late)
        stop_listening = None if on_disconnect is None else on_disconnect(partial(self._end, _disconnected))
        try:
            return await self.future
        finally:
            timer.cancel()
            if stop_listening is not None:
                stop_listening()

    def _end(self, make_error: Callable[[], Exception]) -> None:
        """On the event loop: stop waiting, if there is no answer yet."""
        _settle(self.future, None, make_error())

    def serve(self, answer: Answer) -> None:
        """Finish the answer in this thread and hand it to the event loop."""
        if self.future.done():
            return
        try:
            made = self._make(answer)
        except BaseException as error:  # noqa: BLE001 - the request that waits must hear of it, whatever it is
            self.fail(error)
        else:
            self.future.get_loop().call_soon_threadsafe(_settle, self.future, made, None)

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

    def fail(self, error: BaseException) -> None:
        """Tell the event loop what went wrong."""
        if not isinstance(error, Exception):
            # As a panic in Rust comes to Python: no `except Exception` on its way would make an answer of it.
            failure = RuntimeError(f"a worker failed with {type(error).__name__}")
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
        key: what makes two requests ask about the same picture and model; empty where nobody else may join.
        engine: the model that will run.
        picture: as it came.
        waiters: the requests that wait, the one that opened the flight first.
        answer: of the pass, once it is over; from the start where only a costly answer is still to be made of it.
        closed: nobody joins any more.
        work: the place in the queue of the workers.
    """

    key: bytes
    engine: Engine
    picture: Picture = field(repr=False)
    waiters: list[Waiter[Any]]
    answer: Answer | None = None
    closed: bool = False
    work: Future[None] | None = None
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
