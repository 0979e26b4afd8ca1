"""When a run is to be saved within an epoch, and when it is to end before it is done: by the clock or by a signal."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from enum import IntEnum
from types import FrameType, TracebackType
from typing import Self

_UNITS_S = {"h": 3600, "m": 60, "s": 1}
_TEMPORARY_FAILURE = 75  # EX_TEMPFAIL of sysexits.h: not done, and worth another try
_NOTE = b"unihead-train: stopping at the next step; the same signal again ends the run at once\n"


class Wish(IntEnum):
    """What is wanted of a run after a step; of several processes the greatest wish counts."""

    NOTHING = 0
    SAVE = 1
    STOP_BY_CLOCK = 2
    STOP_BY_INTERRUPT = 3
    STOP_BY_TERMINATION = 4

    @property
    def stops(self) -> bool:
        """Whether the run is to end."""
        return self >= Wish.STOP_BY_CLOCK


_REASONS = {
    Wish.STOP_BY_CLOCK: ("as --stop-after asks", _TEMPORARY_FAILURE),
    Wish.STOP_BY_INTERRUPT: ("by Ctrl-C", 128 + signal.SIGINT),
    Wish.STOP_BY_TERMINATION: ("by SIGTERM", 128 + signal.SIGTERM),
}


class StoppedError(Exception):
    """A run was stopped as it was asked to; its checkpoint holds where it was.

    Attributes:
        exit_code: of the process: 75 by the clock, else 128 and the number of the signal.
    """

    def __init__(self, wish: Wish, where: str) -> None:
        reason, self.exit_code = _REASONS[wish]
        super().__init__(f"stopped {reason} {where}; go on with --resume")


class Watch:
    """Knows at any time what is wanted of a run; as a context manager it listens to SIGTERM and Ctrl-C.

    The first signal asks the run to stop, a second one of its kind does what it does elsewhere.
    """

    def __init__(
        self,
        *,
        stop_after_s: float = 0,
        save_every_s: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count the time.

        Args:
            stop_after_s: after which the run is to end; 0: it is left to end by itself.
            save_every_s: after which a run is to be saved though its epoch is not over; 0: never.
            clock: in seconds.
        """
        self._clock = clock
        self._ends = clock() + stop_after_s if stop_after_s else float("inf")
        self._save_every_s = save_every_s or float("inf")
        self._saved_at = clock()
        self._signalled = Wish.NOTHING
        self._earlier: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._earlier[number] = signal.signal(number, self._heed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in list(self._earlier):
            self._restore(number)

    def look(self) -> Wish:
        """Say what is wanted now."""
        if self._signalled:
            return self._signalled
        now = self._clock()
        if now >= self._ends:
            return Wish.STOP_BY_CLOCK
        return Wish.SAVE if now - self._saved_at >= self._save_every_s else Wish.NOTHING

    def note_saved(self) -> None:
        """Say that the run has just been saved."""
        self._saved_at = self._clock()

    def _heed(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._signalled = Wish.STOP_BY_TERMINATION if number == signal.SIGTERM else Wish.STOP_BY_INTERRUPT
        self._restore(number)
        os.write(2, _NOTE)  # not through a buffer, which the signal may have found half written

    def _restore(self, number: int) -> None:
        signal.signal(number, self._earlier.pop(number))


UNWATCHED = Watch()


def parse_duration(text: str) -> int:
    """Read "90s", "150m", "2h" or "1h30m" as seconds; "0" is none.

    Raises:
        ValueError: it is something else.
    """
    found = re.fullmatch(r"0|(?=\d)(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not found:
        raise ValueError(f"{text!r} is no time; wanted hours, minutes and seconds as in 90s, 150m, 2h or 1h30m")
    return sum(int(part or 0) * unit for part, unit in zip(found.groups(), _UNITS_S.values(), strict=True))
