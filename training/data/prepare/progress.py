"""How far a long work is and how long it will take, on one line of the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

_MIB = 1 << 20
_EVERY_S = 0.5
_WIDTH = 24


class ProgressBar:
    """Draws a bar at most twice a second; on something that is no terminal, one line for every tenth."""

    def __init__(
        self, stream: TextIO, clock: Callable[[], float] = time.monotonic, *, unit: str = "MiB", size: int = _MIB
    ) -> None:
        """Take a place to draw.

        Args:
            stream: to be drawn on.
            clock: in seconds.
            unit: word behind the numbers.
            size: what is counted, per unit.
        """
        self._stream, self._clock, self._unit, self._size = stream, clock, unit, size
        self._archive = ""
        self._started = (0.0, 0)  # seconds and bytes, so that what an earlier run brought does not count as speed
        self._drawn_s = 0.0
        self._tenth = 0

    def __call__(self, archive: str, here: int, total: int) -> None:
        """Show that `here` of `total` bytes of an archive have come, or of whatever is counted."""
        now = self._clock()
        if archive != self._archive:
            self._archive, self._started, self._drawn_s, self._tenth = archive, (now, here), now, 10 * here // total
        is_done = here == total
        if self._stream.isatty():
            if is_done or now - self._drawn_s >= _EVERY_S:
                self._drawn_s = now
                self._stream.write(f"\r{self._describe(now, here, total)}\033[K" + ("\n" if is_done else ""))
        elif 10 * here // total > self._tenth:
            self._tenth = 10 * here // total
            self._stream.write(f"{self._describe(now, here, total)}\n")
        self._stream.flush()

    def _describe(self, now: float, here: int, total: int) -> str:
        started_s, started_bytes = self._started
        filled = _WIDTH * here // total
        bar = "#" * filled + "." * (_WIDTH - filled)
        sizes = f"{here / self._size:.0f} of {total / self._size:.0f} {self._unit}"
        speed = (here - started_bytes) / (now - started_s) if now > started_s else 0.0
        left = f", {speed / self._size:.1f} {self._unit}/s, {_clock_time((total - here) / speed)} left" if speed else ""
        return f"{self._archive} [{bar}] {100 * here // total:3d} % {sizes}{left}"


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
