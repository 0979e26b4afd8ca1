"""What may stand in the query of a picture's path, and the route that reads it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, get_type_hints

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from service.answers.finish import DEFAULT_LOOK, DEFAULTS, MAX_SIDE, PARTS
from service.answers.masks import MaskFormat
from service.answers.render import PictureFormat
from service.errors import InvalidParameter

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

    tasks: str = Field(",".join(PARTS), description="which of segment, detect and classify, separated by commas")


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


class PictureRoute(APIRoute):
    """Documents an endpoint as FastAPI does, and calls it with the request and its query.

    FastAPI's own way from a request to an endpoint's arguments takes a quarter of a millisecond, for a query that is
    mostly empty; and it lets unknown and repeated names pass.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request; FastAPI asks for it once."""
        endpoint, shape = self.endpoint, get_type_hints(self.endpoint)["query"]
        defaults = shape()

        async def handle(request: Request) -> Response:
            query = read_query(request, shape) if request.scope["query_string"] else defaults
            response: Response = await endpoint(request, query)
            return response

        return handle


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
