"""Answers kept for a while: bounded in bytes and in seconds, the longest unused go first."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[Value]):
    value: Value
    size: int
    stored_at: float


class Cache(Generic[Value]):
    """A mapping from digests to values; safe to call from several threads.

    Attributes:
        bytes_held: sizes of all values together.
    """

    def __init__(self, *, max_bytes: int, max_age_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start empty.

        Args:
            max_bytes: sizes of all values together; 0 keeps nothing.
            max_age_s: seconds after which a value is no longer given back; 0 keeps nothing.
            clock: seconds, never going back.
        """
        self.bytes_held = 0
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry[Value]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Value | None:
        """Return the value of `key` if it is there and young enough."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if self._clock() - entry.stored_at >= self._max_age_s:
                self._drop(key)
                return None
            self._entries.move_to_end(key)
            return entry.value

    def put(self, key: bytes, value: Value, size: int) -> None:
        """Keep `value`, which takes `size` bytes; others leave until it fits, and a value too large is not kept."""
        with self._lock:
            if key in self._entries:
                self._drop(key)
            if size > self._max_bytes or self._max_age_s <= 0:
                return
            self._entries[key] = _Entry(value, size, self._clock())
            self.bytes_held += size
            while self.bytes_held > self._max_bytes:
                self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self.bytes_held = 0

    def _drop(self, key: bytes) -> None:
        self.bytes_held -= self._entries.pop(key).size
