"""The one budget of memory: who works takes bytes before the work begins, and gives them back when it is over.

Bodies are counted as they come, and refused where they do not fit. Work (a picture that is decoded, JSON that is read,
an answer that is made) begins only when it fits, together with the room that its answer will keep: in one step, so that
nothing waits for memory while it holds what another waits for. Answers are counted until they are written. Bodies and
answers are held by clients, who may be slow, and have limits of their own; what is left is always free for work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias, get_args

from service.errors import ClientDisconnected, Overloaded, TooManyPixels

Use: TypeAlias = Literal["bodies", "work", "answers"]

# So much of an answer is never waited for: as much as a connection buffers by itself.
FREE_ANSWER_BYTES = 2**16
# Shares of the limit. Work for one picture leaves something for the bodies and pictures beside it.
_BODIES, _ANSWERS, _ONE_WORK = 1 / 2, 1 / 4, 15 / 16
# Where no cgroup sets a limit, resident memory stays below this.
_USUAL_MEMORY = 2**30
# Python, the libraries, the model and its passes, and what the C library keeps of freed memory (docs/deploy.md).
_PROCESS_BYTES = 320 * 2**20


def choose_budget(limit: int | None, *, cache: int) -> int:
    """Bytes that keep a process within its memory, at least a quarter of that.

    Args:
        limit: of the process; None: 1 GiB.
        cache: bytes that it keeps besides.
    """
    limit = limit or _USUAL_MEMORY
    return max(limit - _PROCESS_BYTES - cache, limit // 4)


def _nobody() -> None:
    """Whom nobody has to tell."""


class MemoryBudget:
    """Bytes by use; safe to use from several threads.

    Attributes:
        limit: bytes of all uses together.
        taken: bytes of each use. Answers that turn out larger than foretold are counted all the same, so all together
            may be above the limit for a while; then nothing more is taken.
        on_release: called, in whatever thread, after bytes have been given back.
    """

    def __init__(self, limit: int, count_refusal: Callable[[], None] = _nobody) -> None:
        """Hold nothing yet.

        Args:
            limit: bytes.
            count_refusal: called for each body that is refused.
        """
        self.limit = limit
        self.taken: dict[Use, int] = dict.fromkeys(get_args(Use), 0)
        self.on_release: Callable[[], None] = _nobody
        self._count_refusal = count_refusal
        self._stuck = 0
        self._lock = threading.Lock()
        self.most_bodies = int(limit * _BODIES)
        self.most_answers = int(limit * _ANSWERS)
        self.most_work = int(limit * _ONE_WORK)

    def total(self) -> int:
        """Bytes of all uses."""
        return sum(self.taken.values())

    @contextmanager
    def open(self) -> Iterator[Share]:
        """One request's share, from its first byte to its answer's last one."""
        share = Share(self)
        try:
            yield share
        finally:
            share.close()

    def hold(self, use: Use) -> Hold:
        """Something that holds no bytes yet."""
        return Hold(self, use)

    def require_possible(self, work: int, share: Share | None = None) -> None:
        """Return if work may ever begin, beside the body and the answers of its request.

        Raises:
            TooManyPixels: it takes more than all that it could have.
        """
        beside = 0 if share is None else share.foretell()
        if work > self.most_work or work + beside > self.limit:
            most = min(self.most_work, self.limit - beside)
            raise TooManyPixels(
                f"decoding the picture, or making what is asked about it, takes about {_megabytes(work)} MB of memory, "
                f"and the service has {_megabytes(most)} MB for one; send it smaller, or without transparency"
            )

    def begin(self, work: int, share: Share | None = None) -> Hold | None:
        """Take what work needs, and the room for the answers of its request, if both are free.

        Args:
            work: bytes.
            share: of the request whose answer is made; None where none is kept.

        Returns:
            What holds the bytes of the work; None, and nothing is taken, where they do not fit.
        """
        with self._lock:
            answers = 0 if share is None else share.missing()
            if not self._fits(work, answers, self.total()):
                return None
            hold = Hold(self, "work")
            self._add(hold, work)
            if share is not None:
                self._add(share.answers, answers)
            return hold

    def may_begin(self, work: int, share: Share | None = None) -> bool:
        """Whether work would fit once all is over that runs and is not stuck: then it is worth waiting for."""
        with self._lock:
            answers = 0 if share is None else share.missing()
            return self._fits(work, answers, self.taken["bodies"] + self.taken["answers"] + self._stuck)

    def _fits(self, work: int, answers: int, taken: int) -> bool:
        if answers and self.taken["answers"] + answers > self.most_answers:
            return False
        return not work + answers or taken + work + answers <= self.limit

    def _add(self, hold: Hold, number: int) -> None:
        """With the lock: let a hold have so many bytes more, or less."""
        hold.number += number
        self.taken[hold.use] += number
        if hold.is_stuck:
            self._stuck += number

    def resize(self, hold: Hold, number: int, *, close: bool = False) -> None:
        """Let a hold have so many bytes, whatever the limit; see `Hold`."""
        with self._lock:
            more = 0 if hold.is_closed else number - hold.number
            self._add(hold, more)
            hold.is_closed |= close
        if more < 0:
            self.on_release()

    def take_body(self, hold: Hold, number: int) -> None:
        """Let a hold have so many bytes of a body more.

        Raises:
            Overloaded: bodies would have too many, or all uses together.
            ClientDisconnected: the hold is closed, for its request is over.
        """
        with self._lock:
            if hold.is_closed:
                raise ClientDisconnected("the request is over, and its body is of no use any more")
            bodies, total = self.taken["bodies"], self.total()
            if bodies + number <= self.most_bodies and total + number <= self.limit:
                self._add(hold, number)
                return
        self._count_refusal()
        raise Overloaded(
            f"{total} bytes of memory are in use, {bodies} of them for bodies; {self.limit} are the limit, "
            f"{self.most_bodies} for bodies",
            reason="memory",
            retry_after_s=1,
        )

    def move(self, source: Hold, number: int) -> Hold:
        """Hand bytes of a hold, as many as it has at most, to a new one of the same use."""
        with self._lock:
            number = min(number, source.number)
            target = Hold(self, source.use)
            self._add(source, -number)
            self._add(target, number)
            return target

    def mark_stuck(self, hold: Hold) -> None:
        """Expect no more that a hold is given back soon."""
        with self._lock:
            if not hold.is_stuck:
                hold.is_stuck = True
                self._stuck += hold.number


class Hold:
    """Bytes of one use that somebody holds.

    Attributes:
        use: what for.
        number: bytes.
        is_closed: it never holds any again.
        is_stuck: nobody knows when it is given back.
    """

    __slots__ = ("_budget", "is_closed", "is_stuck", "number", "use")

    def __init__(self, budget: MemoryBudget, use: Use) -> None:
        self._budget = budget
        self.use: Use = use
        self.number = 0
        self.is_closed = self.is_stuck = False

    def resize(self, number: int) -> None:
        """Hold so many bytes, whatever the limit; nothing happens once it is closed."""
        self._budget.resize(self, number)

    def close(self) -> None:
        """Give all back, and hold nothing any more; may be called again."""
        self._budget.resize(self, 0, close=True)


class Share:
    """What one request holds: its body, and the room for its answers.

    Attributes:
        answers: the room that is taken; the first work for the request takes it for all its pictures.
    """

    __slots__ = ("_bodies", "_budget", "_expected", "answers")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._bodies = Hold(budget, "bodies")
        self._expected = 0
        self.answers = Hold(budget, "answers")

    def take_body(self, number: int) -> None:
        """Hold so many bytes of the body more, or of what is unpacked from it.

        Raises:
            Overloaded: they do not fit.
        """
        self._budget.take_body(self._bodies, number)

    def keep_body(self, number: int) -> None:
        """Hold so many bytes of the body from now on: it turned out smaller than what was taken for it."""
        self._bodies.resize(number)

    def move_body(self, number: int) -> Hold:
        """Hand bytes of the body on to who keeps them, perhaps longer than the request."""
        return self._budget.move(self._bodies, number)

    def expect(self, number: int) -> None:
        """Foretell the bytes of all its answers together; before any work for it begins.

        Raises:
            TooManyPixels: there will never be room for so many.
        """
        if number > self._budget.most_answers:
            raise TooManyPixels(
                f"the answer would have about {_megabytes(number)} MB, and {_megabytes(self._budget.most_answers)} MB "
                "are the limit; ask about fewer or smaller pictures at once, or for less about them"
            )
        self._expected = number

    def foretell(self) -> int:
        """Bytes that it holds once all its answers are made, its body among them."""
        return self._bodies.number + max(self._expected, self.answers.number)

    def missing(self) -> int:
        """Bytes of the room for its answers that are not taken yet; small ones are not waited for."""
        if self.answers.is_closed or self._expected <= FREE_ANSWER_BYTES:
            return 0
        return max(0, self._expected - self.answers.number)

    def settle(self, number: int) -> None:
        """Hold as many bytes as the answer has, and none of the body, which has done its service."""
        self._expected = number
        self._bodies.resize(0)
        self.answers.resize(number)

    def close(self) -> None:
        """Give all back: the request is over, and what is unsent of its answer is counted by its connection."""
        self._bodies.close()
        self.answers.close()


def _megabytes(number: int) -> int:
    return round(number / 1e6)
