"""What a client prefers: lists with quality values (RFC 9110, sec. 5.6.1 and 12.4 to 12.5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TypeAlias

Packing: TypeAlias = Literal["gzip", "deflate", ""]

_QVALUE = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?", re.ASCII)
# Beyond what any client says; reading the 32 KiB that a header may have takes the event loop 25 ms.
_MOST_CHARACTERS = 4096
# Without a word about it an answer may come as it is, after every coding that was named (sec. 12.5.3).
_UNNAMED_IDENTITY = 0.0001


def split_list(field: str) -> Iterator[str]:
    """Yield the items of a list in lower case; empty ones, and what lies behind 4096 characters, are passed over."""
    items = field[:_MOST_CHARACTERS].lower().split(",")
    if len(field) > _MOST_CHARACTERS:
        items.pop()  # it may be half of one
    return (item for item in map(str.strip, items) if item)


def _split_weights(field: str) -> Iterator[tuple[str, float]]:
    """Yield (name, quality) of each item; those whose quality cannot be read are passed over."""
    for item in split_list(field):
        name, *parameters = (part.strip() for part in item.split(";"))
        pairs = (parameter.partition("=") for parameter in parameters)
        quality = next((value.strip() for key, _, value in pairs if key.strip() == "q"), "1")
        if _QVALUE.fullmatch(quality):
            yield name, float(quality)


def prefers_png(accept: str | None) -> bool:
    """Whether `Accept` prefers image/png over application/json; at a tie the one that is named more exactly wins.

    JSON is the answer where nothing is said, where both are named alike, and where neither is acceptable (RFC 9110,
    sec. 12.5.1).
    """
    ranges = [(*name.partition("/"), quality) for name, quality in _split_weights(accept or "*/*")]
    found = [(kind, subtype, quality) for kind, slash, subtype, quality in ranges if slash]
    png, json = _quality("image", "png", found), _quality("application", "json", found)
    return png[0] > 0 and png > json


def _quality(kind: str, subtype: str, ranges: Sequence[tuple[str, str, float]]) -> tuple[float, int]:
    """Quality of a media type by the most exact range that covers it, and how exact that is: 0 `*/*` to 2."""
    best = (0.0, -1)
    for range_kind, range_subtype, quality in ranges:
        exactness = (range_kind == kind) + (range_subtype == subtype)
        covers = range_kind in {kind, "*"} and range_subtype in {subtype, "*"}
        if covers and exactness > best[1]:
            best = (quality, exactness)
    return best


def choose_packing(accept_encoding: str) -> Packing:
    """The coding of an answer that `Accept-Encoding` prefers (RFC 9110, sec. 12.5.3); empty: it comes as it is.

    At a tie gzip comes before deflate, and both before none; where nothing is acceptable, not even the answer as it is,
    it comes so all the same.
    """
    weights = {name.removeprefix("x-"): quality for name, quality in _split_weights(accept_encoding)}
    others = weights.get("*", 0.0)
    quality: dict[Packing, float] = {
        "gzip": weights.get("gzip", others),
        "deflate": weights.get("deflate", others),
        "": weights.get("identity", weights.get("*", _UNNAMED_IDENTITY)),
    }
    best = max(quality, key=quality.__getitem__)  # the first of the best
    return best if quality[best] > 0 else ""


def find_packing(content_encoding: Iterable[str]) -> str:
    """The one coding that a body comes in, in lower case; empty if it comes as it is.

    Args:
        content_encoding: the lines of the header, of which there may be several.
    """
    return ", ".join(
        item.removeprefix("x-") for line in content_encoding for item in split_list(line) if item != "identity"
    )
