"""What requests ask of the workers, and how they wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from service.engine.postprocess import Answer
from service.engine.prepare import Look, Picture
from service.errors import ClientDisconnected, DeadlineExceeded
from service.memory import Share
from service.telemetry.timing import Stopwatch

if TYPE_CHECKING:
    from service.telemetry.spans import PictureTrace

Made = TypeVar("Made")
# To make one answer of a pass that is over: less than handing it to a thread; some; as much as a pass.
Effort: TypeAlias = Literal["little", "some", "pass"]
# Given what to call when the client disconnects; returns what takes that back.
OnDisconnect: TypeAlias = Callable[[Callable[[], None]], Callable[[], None]]


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
        look: what is known of the picture already.
        making: bytes of memory that `finish` needs.
        share: what the request holds of the budget of memory; None where it is counted nowhere.
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
    look: Look | None = None
    making: int = 0
    share: Share | None = None


@dataclass(slots=True, eq=False)
class Waiting(Generic[Made]):
    """One request that waits for what a worker makes.

    Attributes:
        deadline: when it is of no use any more; in seconds, as time.monotonic counts.
        future: where it goes; done as well when the request has left.
    """

    deadline: float
    future: asyncio.Future[Made]

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

    def hand_over(self, make: Callable[[], Made]) -> None:
        """Make the answer in this thread and hand it to the event loop, unless the request has left."""
        if self.future.done():
            return
        try:
            made = make()
        except BaseException as error:  # noqa: BLE001 - the request that waits must hear of it, whatever it is
            self.fail(error)
        else:
            self.future.get_loop().call_soon_threadsafe(_settle, self.future, made, None)

    def fail(self, error: BaseException) -> None:
        """Tell the event loop what went wrong."""
        if not isinstance(error, Exception):
            # As a panic in Rust comes to Python: no `except Exception` on its way would make an answer of it.
            failure = RuntimeError(f"a worker failed with {type(error).__name__}")
            failure.__cause__, error = error, failure
        self.future.get_loop().call_soon_threadsafe(_settle, self.future, None, error)


def too_late() -> DeadlineExceeded:
    """Build the error of a picture that is late."""
    return DeadlineExceeded("the deadline passed before the answer was ready; the request may allow more time")


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
