"""What a request says beside its picture: how long it waits, whether it shares."""

from __future__ import annotations

from service.errors import InvalidParameter
from service.settings import MAX_TIMEOUT_MS

TIMEOUT_HEADER = "X-Request-Timeout-Ms"


def read_timeout_s(header: str | None, default_ms: int) -> float:
    """Seconds that a request waits.

    Raises:
        InvalidParameter: the header is no number of milliseconds, or out of range.
    """
    if header is None:
        return default_ms / 1000
    if not (header.isdecimal() and 1 <= int(header[:10]) <= MAX_TIMEOUT_MS):
        raise InvalidParameter(
            f"{TIMEOUT_HEADER} is {header[:80]!r}; it takes whole milliseconds, 1 to {MAX_TIMEOUT_MS}"
        )
    return int(header) / 1000


def wants_fresh(cache_control: str) -> bool:
    """Whether a request says no-cache or no-store (RFC 9111, sec. 5.2.1)."""
    return any(word.strip().lower() in {"no-cache", "no-store"} for word in cache_control.split(","))
