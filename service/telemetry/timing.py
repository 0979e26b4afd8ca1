"""Milliseconds by stage: measured once, then told to Prometheus, in `timing_ms` and in `Server-Timing` alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

Stage: TypeAlias = Literal["decode", "preprocess", "queue", "forward", "postprocess", "encode", "other", "total"]

SHARED_STAGES: tuple[Stage, ...] = ("decode", "preprocess", "queue", "forward")
# `queue` is there twice: a picture whose pass another request had started waits without a share in the shared stages.
TASK_STAGES: tuple[Stage, ...] = ("queue", "postprocess", "encode", "other", "total")


class Stopwatch:
    """Runs from its making on; one thread at a time may use it.

    Attributes:
        started: when it was made, in seconds of the clock.
        timings_ms: what has been measured so far.
        laps: stage, begin and end of each lap, in seconds of the clock.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.timings_ms: dict[Stage, float] = {}
        self.laps: list[tuple[Stage, float, float]] = []
        self._clock = clock
        self.started = self._last = clock()

    def lap(self, stage: Stage) -> None:
        """Add the time since the last lap to `stage`: nothing between two laps goes unaccounted for."""
        now = self._clock()
        self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + (now - self._last) * 1000
        self.laps.append((stage, self._last, now))
        self._last = now

    def elapsed_ms(self) -> float:
        """Milliseconds since the stopwatch was made."""
        return (self._clock() - self.started) * 1000

    def finish(self) -> None:
        """Write `total`, and what no lap has measured as `other`; nothing is lapped afterwards."""
        total_ms = self.elapsed_ms()
        self.timings_ms["other"] = max(0.0, total_ms - sum(self.timings_ms.values()))
        self.timings_ms["total"] = total_ms


def format_server_timing(timings_ms: Mapping[Stage, float]) -> str:
    """Write a `Server-Timing` header (W3C Server Timing, sec. 3); browsers draw it beside the request."""
    return ", ".join(f"{stage};dur={milliseconds:.3f}" for stage, milliseconds in timings_ms.items())
