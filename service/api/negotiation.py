"""Which of two forms a client prefers, by its `Accept` header (RFC 9110, sec. 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator

_QVALUE = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


def prefers_png(accept: str | None) -> bool:
    """Whether image/png is preferred over application/json; at a tie the one that is named more exactly wins.

    JSON is the answer where nothing is said, where both are named alike, and where neither is acceptable.
    """
    ranges = list(_parse_ranges(accept or "*/*"))
    png, json = _quality("image", "png", ranges), _quality("application", "json", ranges)
    return png[0] > 0 and png > json


def _parse_ranges(accept: str) -> Iterator[tuple[str, str, float]]:
    """Yield (type, subtype, quality) of each media range; those that cannot be read are passed over."""
    for item in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in item.split(";"))
        kind, slash, subtype = media_range.partition("/")
        quality = next((value.strip() for name, _, value in map(_split, parameters) if name.strip() == "q"), "1")
        if slash and _QVALUE.fullmatch(quality):
            yield kind, subtype, float(quality)


def _split(parameter: str) -> tuple[str, str, str]:
    return parameter.partition("=")


def _quality(kind: str, subtype: str, ranges: list[tuple[str, str, float]]) -> tuple[float, int]:
    """Quality of a media type by the most exact range that covers it, and how exact that is: 0 `*/*` to 2."""
    best = (0.0, -1)
    for range_kind, range_subtype, quality in ranges:
        exactness = (range_kind == kind) + (range_subtype == subtype)
        covers = range_kind in {kind, "*"} and range_subtype in {subtype, "*"}
        if covers and exactness > best[1]:
            best = (quality, exactness)
    return best
