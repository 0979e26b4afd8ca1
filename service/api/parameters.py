"""What a request says beside its picture: its query and form fields, how long it waits, whether it shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError
from starlette.requests import Request

from service.answers.finish import DEFAULT_LOOK, DEFAULTS, MAX_SIDE
from service.answers.masks import MaskFormat
from service.answers.render import PictureFormat
from service.api.fields.numbers import read_decimal, read_fraction
from service.api.fields.preferences import split_list
from service.errors import InvalidParameter
from service.settings import MAX_TIMEOUT_MS

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
MOST_COUNTED = 1_000_000
_MOST_PARAMETERS = 32

Query = TypeVar("Query", bound=BaseModel)


def _read_whole(value: object) -> object:
    if not isinstance(value, str):
        return value
    number = read_decimal(value, MOST_COUNTED)
    if number is None:
        raise PydanticCustomError("decimal", f"it takes whole numbers up to {MOST_COUNTED}, digits alone")
    return number


def _read_share(value: object) -> object:
    if not isinstance(value, str):
        return value
    number = read_fraction(value)
    if number is None:
        raise PydanticCustomError("fraction", "it takes numbers from 0 to 1, digits and a point")
    return number


# Each is text in a query.
Whole: TypeAlias = Annotated[int, BeforeValidator(_read_whole)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(_read_share)]


class SegmentQuery(BaseModel):
    """Parameters of POST /segment."""

    mask: MaskFormat = Field(DEFAULTS.mask, description="how the mask lies in the JSON; `none` leaves it out")


class DetectQuery(BaseModel):
    """Parameters of POST /detect."""

    # A factory, because the schema can name no default: that is the model's, and another one may come.
    score_threshold: Share | SkipJsonSchema[None] = Field(
        default_factory=lambda: DEFAULTS.score_threshold,
        description="boxes that score less are left out; without it those that score less than the `score_threshold` "
        "of the model's contract (`GET /info`)",
    )
    max_detections: Whole = Field(
        DEFAULTS.max_detections,
        ge=1,
        le=MOST_COUNTED,
        description="boxes at most; up to `max_detections` of the model's contract",
    )


class ClassifyQuery(BaseModel):
    """Parameters of POST /classify."""

    top_k: Whole = Field(DEFAULTS.top_k, ge=1, le=MOST_COUNTED, description="classes at most")


class PredictQuery(ClassifyQuery, DetectQuery, SegmentQuery):
    """Parameters of POST /predict."""

    # As with the threshold, the default is the model's.
    tasks: str = Field(
        default_factory=str,
        description="which of segment, detect and classify, separated by commas; without it those that the model "
        "serves, the `tasks` of its contract (`GET /info`)",
    )


class OverlayQuery(DetectQuery):
    """Parameters of POST /overlay."""

    opacity: Share = Field(DEFAULT_LOOK.opacity, description="of the mask; at 0 its outlines stay")
    format: PictureFormat = Field(DEFAULT_LOOK.format, description="of the answer")
    max_side: Whole = Field(
        DEFAULT_LOOK.max_side,
        ge=32,
        le=MAX_SIDE,
        description="a picture with a longer side is drawn smaller; in pixels",
    )


def read_query(request: Request, shape: type[Query], fields: Sequence[tuple[str, str]] = ()) -> Query:
    """Read the query of a request, and what its form says beside the picture.

    Args:
        request: whose query is read.
        shape: of the parameters.
        fields: of its form, name and value of each.

    Raises:
        InvalidParameter: a name is unknown or given twice, or a value is out of its range.
    """
    known = sorted(shape.model_fields)
    if request.scope["query_string"].count(b"&") > _MOST_PARAMETERS:
        raise InvalidParameter(f"the query has more than {_MOST_PARAMETERS} parameters; this path has {len(known)}")
    given = [("query parameter", *pair) for pair in request.query_params.multi_items()]
    given += [("form field", *pair) for pair in fields]
    names = [name for _, name, _ in given]
    for kind, name, _ in given:
        if name not in known:
            knows = f"knows {', '.join(known)}" if known else "takes none"
            raise InvalidParameter(f"unknown {kind} {name[:80]!r}; this path {knows}")
        if names.count(name) > 1:
            raise InvalidParameter(f"{kind} {name!r} is given {names.count(name)} times; give it once")
    try:
        return shape.model_validate({name: value for _, name, value in given})
    except ValidationError as error:
        first = error.errors()[0]
        name, value = str(first["loc"][0]), str(first["input"])[:80]
        kind = next(kind for kind, given_name, _ in given if given_name == name)
        raise InvalidParameter(f"{kind} {name!r} is {value!r}: {first['msg'].lower()}") from error


def read_timeout_s(header: str | None, default_ms: int) -> float:
    """Seconds that a request waits.

    Raises:
        InvalidParameter: the header is no number of milliseconds, or out of range.
    """
    if header is None:
        return default_ms / 1000
    milliseconds = read_decimal(header, MAX_TIMEOUT_MS)
    if not milliseconds:
        raise InvalidParameter(
            f"{TIMEOUT_HEADER} is {header[:80]!r}; it takes whole milliseconds, 1 to {MAX_TIMEOUT_MS}"
        )
    return milliseconds / 1000


def wants_fresh(cache_control: str) -> bool:
    """Whether a request says no-cache or no-store (RFC 9111, sec. 5.2.1)."""
    return any(word in {"no-cache", "no-store"} for word in split_list(cache_control))
