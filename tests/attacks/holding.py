"""How long a call holds the interpreter: what every other request of the service waits meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from service.errors import RequestError

_TICK_S = 0.001


def measure_hold_ms(call: Callable[[], object], *, tries: int = 3) -> float:
    """Call it beside a thread that ticks, and return the longest time between two ticks; it may be refused.

    In CPU time of this process, and the best of some tries: a machine that is busy elsewhere makes ticks late, too.
    """
    return min(_measure_once(call) for _ in range(tries))


def _measure_once(call: Callable[[], object]) -> float:
    longest_s, is_over = 0.0, threading.Event()
    started = threading.Event()

    def tick() -> None:
        nonlocal longest_s
        last_s = time.process_time()
        while not is_over.is_set():
            started.set()
            time.sleep(_TICK_S)
            now_s = time.process_time()
            longest_s, last_s = max(longest_s, now_s - last_s), now_s

    thread = threading.Thread(target=tick)
    thread.start()
    started.wait()
    try:
        with contextlib.suppress(RequestError):
            call()
    finally:
        is_over.set()
        thread.join()
    return longest_s * 1000
