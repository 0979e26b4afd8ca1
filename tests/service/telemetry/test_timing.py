from __future__ import annotations

import pytest

from service.telemetry.timing import Stopwatch, format_server_timing


def test_laps_leave_no_time_unaccounted_for() -> None:
    times = iter([10.0, 10.001, 10.004, 10.010, 10.010])
    watch = Stopwatch(clock=lambda: next(times))
    watch.lap("queue")
    watch.lap("decode")
    watch.lap("queue")
    assert watch.timings_ms == pytest.approx({"queue": 1 + 6, "decode": 3})
    assert watch.elapsed_ms() == pytest.approx(sum(watch.timings_ms.values()))


def test_what_no_lap_has_measured_is_other() -> None:
    times = iter([10.0, 10.004, 10.010])
    watch = Stopwatch(clock=lambda: next(times))
    watch.lap("forward")
    watch.finish()
    assert watch.timings_ms == pytest.approx({"forward": 4, "other": 6, "total": 10})


def test_server_timing_is_written_as_browsers_read_it() -> None:
    assert format_server_timing({"decode": 1.23456, "total": 20.0}) == "decode;dur=1.235, total;dur=20.000"
