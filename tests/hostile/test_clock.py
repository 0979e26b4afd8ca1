"""The clock on the wall jumps by days under load: no deadline is over, and nothing is forgotten early."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from tests.attacks.processes import Running, start
from tests.service.fakes import encode, make_picture

DAY_S = 86_400
PICTURES = [encode(make_picture(seed=seed)) for seed in range(5)]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime (Debian package faketime)"),
]


def find_library() -> str:
    (library,) = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return str(library)


class Wall:
    """What the service takes for the clock on the wall; its monotonic clock is left alone."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, offset_s: int) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_text(f"{offset_s:+d}\n")
        temporary.replace(self._file)

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": find_library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


def ask(service: Running, stop: threading.Event, seen: Counter[int]) -> None:
    number = 0
    while not stop.is_set():
        headers = {"Cache-Control": "no-cache"} if number % 2 else {}
        seen[service.ask("/predict", PICTURES[number % len(PICTURES)], headers)[0]] += 1
        number += 1


def test_a_jump_of_the_clock_ends_nothing(tmp_path: Path) -> None:
    wall = Wall(tmp_path / "wall")
    words = ["--request-timeout-ms", "5000", "--cache-max-age-s", "3600"]
    with start(tmp_path / "log", *words, environment=wall.environment()) as service:
        service.wait_until_ready()
        stop, seen = threading.Event(), Counter[int]()
        threads = [threading.Thread(target=ask, args=(service, stop, seen)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for offset_s in (0, DAY_S, -DAY_S, 0):
            wall.set(offset_s)
            before = sum(seen.values())
            deadline = time.monotonic() + 60
            while sum(seen.values()) < before + 40:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert service.is_ready()
        stop.set()
        for thread in threads:
            thread.join()
        assert set(seen) == {200}
        # The five pictures were looked at once, and kept all the time.
        assert service.count("unihead_refused_requests_total") == 0
        assert service.count("unihead_dropped_images_total") == 0
        misses = f'unihead_cache_requests_total{{result="miss"}} {len(PICTURES):.1f}'
        assert misses in service.ask("/metrics")[1].decode()
        wall.set(-DAY_S)
        service.process.send_signal(signal.SIGTERM)
        assert service.wait(10) == 0
    days = {datetime.fromisoformat(line["time"]).date() for line in service.read_log()}
    assert (max(days) - min(days)).days == 2  # the wall did jump
    assert all(0 <= line["ms"] < 60_000 for line in service.read_log() if line["message"] == "request")
