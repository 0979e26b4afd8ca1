"""Whether one more picture can be taken: a queue that is counted, and a wait that is predicted."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from service.errors import Overloaded, OverloadReason

# Weight of the newest picture in the moving average: about the last ten count.
_NEWEST = 0.1
# Of the newest answer in the share of refusals: about the last twenty count.
_NEWEST_ANSWER = 0.05
_SHED_ABOVE = 0.5
# After two pictures have met, so long no pass takes the threads of another.
_COMPANY_S = 0.25


class Admission:
    """Counts pictures that wait and those that are worked on; safe to call from several threads.

    Attributes:
        limit: pictures that may wait.
        count_refusal: called with the reason of each refusal.
        waiting: pictures that wait for a worker.
        active: pictures that workers work on.
        pace_s: seconds from one finished picture to the next while all workers are busy, as last seen.
    """

    def __init__(
        self,
        *,
        limit: int,
        count_refusal: Callable[[OverloadReason], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self.count_refusal = count_refusal
        self._clock = clock
        self._company_until = -math.inf
        self.waiting = 0
        self.active = 0
        self.pace_s = 0.0
        self._refused_share = 0.0
        self._lock = threading.Lock()

    def predict_wait_s(self) -> float:
        """Seconds that a picture which comes now will wait until those before it are done."""
        return (self.waiting + self.active) * self.pace_s

    def admit(self, patience_s: float) -> None:
        """Take one more picture into the queue.

        Args:
            patience_s: seconds until its deadline.

        Raises:
            Overloaded: the queue is full, or the wait would outlast the patience; says when to come back.
        """
        with self._lock:
            wait_s = self.predict_wait_s()
            if self.waiting >= self.limit:
                self._note_answer(refused=True)
                raise self._queue_full(wait_s)
            # Without a queue the picture is tried, however slow the last ones were: only so the pace is learned anew.
            if self.waiting and wait_s > patience_s:
                sentence = f"the wait is about {wait_s:.2f} s, the deadline is in {patience_s:.2f} s"
                raise self._refuse(sentence, "wait_too_long", wait_s - patience_s)
            self._note_answer(refused=False)
            if self.waiting + self.active:
                self._company_until = self._clock() + _COMPANY_S
            self.waiting += 1

    def readmit(self) -> None:
        """Take what belongs to a picture that was admitted before: it has a place in any case."""
        with self._lock:
            self.waiting += 1

    def shed(self) -> None:
        """Refuse a picture before its body has been read, while refusing is what mostly happens.

        A body may be that of a picture under way, which takes no place, and is read for that reason. When most
        pictures are refused anyway, reading them would take the time of those that are not.

        Raises:
            Overloaded: the queue is full and most pictures have been refused lately.
        """
        if self.waiting < self.limit or self._refused_share < _SHED_ABOVE:
            return
        with self._lock:
            self._note_answer(refused=True)
            raise self._queue_full(self.predict_wait_s())

    def _note_answer(self, *, refused: bool) -> None:
        self._refused_share += (refused - self._refused_share) * _NEWEST_ANSWER

    def _queue_full(self, wait_s: float) -> Overloaded:
        return self._refuse(f"{self.waiting} pictures wait already, which is the limit", "queue_full", wait_s)

    def _refuse(self, sentence: str, reason: OverloadReason, retry_after_s: float) -> Overloaded:
        self.count_refusal(reason)
        return Overloaded(sentence, reason=reason, retry_after_s=max(1, math.ceil(retry_after_s)))

    def leave(self) -> None:
        """Let one picture go that no worker has taken."""
        with self._lock:
            self.waiting -= 1

    def start(self) -> None:
        """Move one picture from the queue to a worker."""
        with self._lock:
            self.waiting -= 1
            self.active += 1

    def is_alone(self) -> bool:
        """Whether one picture is all there is, and no two were lately: under load the next is on its way."""
        with self._lock:
            return self.waiting == 0 and self.active == 1 and self._clock() >= self._company_until

    def finish(self, took_s: float | None) -> None:
        """Let one picture go that a worker has done.

        Args:
            took_s: seconds from start to finish, shared with the others at work; None for a picture that was dropped.
        """
        with self._lock:
            if took_s is not None:
                pace_s = took_s / self.active
                self.pace_s += (pace_s - self.pace_s) * (_NEWEST if self.pace_s else 1)
            self.active -= 1
