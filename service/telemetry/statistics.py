"""Counts and nanoseconds in the words of Triton's statistics extension, for clients that ask `/v2/.../stats`."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from service.telemetry.timing import Stage

# All that the extension names, in its order; what has not happened yet is 0.
_DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit")


@dataclass(slots=True)
class _Duration:
    count: int = 0
    ms: float = 0.0

    def add(self, milliseconds: float) -> None:
        self.count += 1
        self.ms += milliseconds

    def describe(self, *, pictures_each: int = 1) -> dict[str, int]:
        """Write a `$duration_stat`, of events that each were counted once for each of their pictures."""
        return {"count": self.count // pictures_each, "ns": round(self.ms * 1e6)}


class Statistics:
    """Sums over all pictures that were asked about, by any route; safe to add to from several threads."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Begin at 0.

        Args:
            clock: seconds since the epoch.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._last_s = 0.0
        self._sums = {name: _Duration() for name in _DURATIONS}
        # By pictures in a pass: what preparing them took, and the passes.
        self._batches: defaultdict[int, tuple[_Duration, _Duration]] = defaultdict(lambda: (_Duration(), _Duration()))

    def note_pass(self, timings_ms: Mapping[Stage, float], *, batch_size: int) -> None:
        """Add one picture's way to and through its pass, in which there were so many."""
        prepared_ms, forward_ms = _sum(timings_ms, "decode", "preprocess"), _sum(timings_ms, "forward")
        with self._lock:
            self._sums["queue"].add(_sum(timings_ms, "queue"))
            self._sums["compute_input"].add(prepared_ms)
            self._sums["compute_infer"].add(forward_ms)
            prepared, passes = self._batches[batch_size]
            prepared.add(prepared_ms)
            passes.add(forward_ms / batch_size)

    def note_answer(self, timings_ms: Mapping[Stage, float], *, is_hit: bool) -> None:
        """Add one picture's answer; where its pass was in the cache, nothing was computed that the extension counts."""
        with self._lock:
            self._last_s = self._clock()
            self._sums["success"].add(_sum(timings_ms, "total"))
            if is_hit:
                self._sums["queue"].add(_sum(timings_ms, "queue"))
                self._sums["cache_hit"].add(_sum(timings_ms, "total"))
            else:
                self._sums["compute_output"].add(_sum(timings_ms, "postprocess", "encode"))

    def note_failure(self, took_ms: float) -> None:
        """Add one picture that got no answer, whatever the reason."""
        with self._lock:
            self._last_s = self._clock()
            self._sums["fail"].add(took_ms)

    def describe(self) -> dict[str, Any]:
        """Write a `$model_stat` of the extension, name and version aside."""
        with self._lock:
            batches = [
                {
                    "batch_size": size,
                    "compute_input": prepared.describe(pictures_each=size),
                    "compute_infer": passes.describe(pictures_each=size),
                    "compute_output": _Duration().describe(),  # answers are made one by one
                }
                for size, (prepared, passes) in sorted(self._batches.items())
            ]
            executions = sum(passes.count // size for size, (_, passes) in self._batches.items())
            return {
                "last_inference": round(self._last_s * 1000),
                "inference_count": self._sums["compute_infer"].count,
                "execution_count": executions,
                "inference_stats": {name: duration.describe() for name, duration in self._sums.items()},
                "batch_stats": batches,
            }


def _sum(timings_ms: Mapping[Stage, float], *stages: Stage) -> float:
    return sum(timings_ms.get(stage, 0.0) for stage in stages)
