"""Where each request's time goes, as a trace that ui.perfetto.dev and chrome://tracing draw."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from service.telemetry.timing import Stopwatch

logger = logging.getLogger("unihead")


class ProfileError(Exception):
    """The file cannot be written."""


class Profile:
    """Writes trace events (Trace Event Format, JSON array, complete events "X"); one row a request under way."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._rows: list[float] = []  # when each row becomes free, in seconds of the stopwatches
        self._has_failed = False
        self._put("[\n")

    def _put(self, text: str) -> None:
        """Write; a disk that is full costs the profile, and no request."""
        if self._has_failed:
            return
        try:
            self._file.write(text)
        except OSError as error:
            self._has_failed = True
            logger.error("the profile ends here, it cannot be written any more: %s", error.strerror)  # noqa: TRY400 - no fault of ours

    def write(self, task: str, request_id: str, cache: str, watch: Stopwatch) -> None:
        """Write one request: an event for all of it, and one for each stage inside.

        Args:
            task: the route.
            request_id: as in the log.
            cache: where the pass came from.
            watch: of the request, finished.
        """
        if not watch.laps:
            return
        begin = watch.laps[0][1]
        end = begin + watch.timings_ms["total"] / 1000
        row = next((i for i, free_at in enumerate(self._rows) if free_at <= begin), len(self._rows))
        self._rows[row : row + 1] = [end]
        events = [(f"/{task}", begin, end), *watch.laps]
        for name, started, stopped in events:
            event = {
                "name": name,
                "ph": "X",
                "ts": round(started * 1e6),
                "dur": round((stopped - started) * 1e6),
                "pid": 1,
                "tid": row,
                "args": {"request_id": request_id, "cache": cache},
            }
            # The format allows for a missing "]" at the end, so that a killed process leaves a readable file.
            self._put(f"{json.dumps(event)},\n")


@contextlib.contextmanager
def open_profile(path: Path | None) -> Iterator[Profile | None]:
    """Keep a profile open; None keeps none.

    Raises:
        ProfileError: see there.
    """
    if path is None:
        yield None
        return
    try:
        file = path.open("w", buffering=1)
    except OSError as error:
        raise ProfileError(f"{path}: the profile cannot be written: {error.strerror}") from error
    try:
        yield Profile(file)
    finally:
        with contextlib.suppress(OSError):  # what the disk does not take has been told of
            file.close()
