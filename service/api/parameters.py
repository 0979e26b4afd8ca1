"""What a request says beside its picture: its query, how long it waits, whether it shares, which form it prefers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request

from service.answers.finish import DEFAULT_LOOK, DEFAULTS, MAX_SIDE
from service.answers.masks import MaskFormat
from service.answers.render import PictureFormat
from service.errors import InvalidParameter
from service.settings import MAX_TIMEOUT_MS

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
_QVALUE = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")

Query = TypeVar("Query", bound=BaseModel)


class SegmentQuery(BaseModel):
    """Parameters of POST /segment."""

    mask: MaskFormat = Field(DEFAULTS.mask, description="how the mask lies in the JSON; `none` leaves it out")


class DetectQuery(BaseModel):
    """Parameters of POST /detect."""

    score_threshold: float = Field(
        DEFAULTS.score_threshold,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="boxes that score less are left out",
    )
    max_detections: int = Field(
        DEFAULTS.max_detections, ge=1, description="boxes at most; up to `max_detections` of the model's contract"
    )


class ClassifyQuery(BaseModel):
    """Parameters of POST /classify."""

    top_k: int = Field(DEFAULTS.top_k, ge=1, description="classes at most")


class PredictQuery(ClassifyQuery, DetectQuery, SegmentQuery):
    """Parameters of POST /predict."""

    # A factory, because the schema can name no default: that is the model's, and another one may come.
    tasks: str = Field(
        default_factory=str,
        description="which of segment, detect and classify, separated by commas; without it those that the model "
        "serves, the `tasks` of its contract (`GET /info`)",
    )


class OverlayQuery(DetectQuery):
    """Parameters of POST /overlay."""

    opacity: float = Field(
        DEFAULT_LOOK.opacity, ge=0, le=1, allow_inf_nan=False, description="of the mask; at 0 its outlines stay"
    )
    format: PictureFormat = Field(DEFAULT_LOOK.format, description="of the answer")
    max_side: int = Field(
        DEFAULT_LOOK.max_side,
        ge=32,
        le=MAX_SIDE,
        description="a picture with a longer side is drawn smaller; in pixels",
    )


def read_query(request: Request, shape: type[Query]) -> Query:
    """Read the query of a request.

    Raises:
        InvalidParameter: a name is unknown, or given twice.
        RequestValidationError: a value is out of its range.
    """
    known = sorted(shape.model_fields)
    pairs = request.query_params.multi_items()
    names = [name for name, _ in pairs]
    for name in names:
        if name not in known:
            knows = f"knows {', '.join(known)}" if known else "takes none"
            raise InvalidParameter(f"unknown query parameter {name[:80]!r}; this path {knows}")
        if names.count(name) > 1:
            raise InvalidParameter(f"query parameter {name!r} is given {names.count(name)} times; give it once")
    try:
        return shape.model_validate(dict(pairs))
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


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


def prefers_png(accept: str | None) -> bool:
    """Whether `Accept` prefers image/png over application/json; at a tie the one that is named more exactly wins.

    JSON is the answer where nothing is said, where both are named alike, and where neither is acceptable (RFC 9110,
    sec. 12.5.1).
    """
    ranges = list(_parse_ranges(accept or "*/*"))
    png, json = _quality("image", "png", ranges), _quality("application", "json", ranges)
    return png[0] > 0 and png > json


def _parse_ranges(accept: str) -> Iterator[tuple[str, str, float]]:
    """Yield (type, subtype, quality) of each media range; those that cannot be read are passed over."""
    for item in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in item.split(";"))
        kind, slash, subtype = media_range.partition("/")
        pairs = (parameter.partition("=") for parameter in parameters)
        quality = next((value.strip() for name, _, value in pairs if name.strip() == "q"), "1")
        if slash and _QVALUE.fullmatch(quality):
            yield kind, subtype, float(quality)


def _quality(kind: str, subtype: str, ranges: list[tuple[str, str, float]]) -> tuple[float, int]:
    """Quality of a media type by the most exact range that covers it, and how exact that is: 0 `*/*` to 2."""
    best = (0.0, -1)
    for range_kind, range_subtype, quality in ranges:
        exactness = (range_kind == kind) + (range_subtype == subtype)
        covers = range_kind in {kind, "*"} and range_subtype in {subtype, "*"}
        if covers and exactness > best[1]:
            best = (quality, exactness)
    return best
