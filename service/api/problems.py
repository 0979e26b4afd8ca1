"""Whatever goes wrong, told as problem+json (RFC 9457); no FastAPI default and no stack trace reaches a client."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from service.api.scope import OIP_ROOT, VISION_ROOT, find_route_path
from service.errors import (
    ClientDisconnected,
    ModelOutputInvalid,
    RequestError,
    RequestTimeout,
    TaskNotServed,
    Unauthorized,
    Unavailable,
)

logger = logging.getLogger("unihead")

MEDIA_TYPE = "application/problem+json"
_CODES = sorted(kind.code for base in (RequestError, Unavailable) for kind in base.__subclasses__())
INTERNAL_ERROR = "internal_error"
INTERNAL_DETAIL = "something broke in the service; its log has more under this request_id"
_CLIENT_GONE = 499  # no standard status; nginx logs it so
_HINTS = {404: "there is no such path; `GET /` lists what there is", 405: "this path does not take that method"}


class Problem(BaseModel):
    """Why a request was not answered."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Unsupported Media Type",
                "status": 415,
                "detail": "the first bytes are not those of a JPEG, PNG or WebP picture; convert it and send it again",
                "code": "unsupported_image",
                "request_id": "3f0c8a1e5b7d4c52",
            }
        }
    )

    type: str = Field("about:blank", description="always about:blank: `code` tells the kinds apart")
    title: str = Field(description="the status in words")
    status: int
    detail: str = Field(description="one sentence: what came, what was wanted")
    code: str = Field(description=f"which kind of failure, for programs: {', '.join(_CODES)}, or the status in words")
    request_id: str = Field(description="also in X-Request-ID and in the log")
    retry_after_s: int | None = Field(
        None,
        description="seconds after which trying again is worth it; for one picture of several, elsewhere it is the "
        "header Retry-After",
    )


def make_problem(
    scope: Scope, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Build the answer to a request that cannot be answered, in the words that clients of its protocol read."""
    path = find_route_path(scope)
    scope["state"]["problem_code"] = code  # for the request's line in the log, and its trace
    if path == OIP_ROOT or path.startswith(f"{OIP_ROOT}/"):
        return JSONResponse({"error": detail}, status, headers)
    if path.startswith(f"{VISION_ROOT}/"):
        return JSONResponse({"success": False, "error": detail, "code": status}, status, headers)
    problem = _fill(scope["state"]["request_id"], status, code, detail)
    return Response(problem.model_dump_json(exclude_none=True), status, headers, MEDIA_TYPE)


def _fill(request_id: str, status: int, code: str, detail: str) -> Problem:
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code, request_id=request_id)


def describe_failure(request_id: str, error: Exception) -> Problem:
    """Say what went wrong with a request, or one picture of several; a surprise is logged, and nothing of it is told.

    Args:
        request_id: of the request.
        error: that a request about this picture alone would have met.
    """
    if isinstance(error, RequestError):
        return _fill(request_id, error.status, error.code, str(error))
    if isinstance(error, Unavailable):
        problem = _fill(request_id, error.status, error.code, str(error))
        return problem.model_copy(update={"retry_after_s": error.retry_after_s})
    if isinstance(error, ModelOutputInvalid):
        return _fill(request_id, error.status, error.code, _log_invalid_output(request_id, error))
    logger.error("request %s failed", request_id, exc_info=error, extra={"fields": {"request_id": request_id}})
    return _fill(request_id, 500, INTERNAL_ERROR, INTERNAL_DETAIL)


def _log_invalid_output(request_id: str, error: ModelOutputInvalid) -> str:
    """Tell the log what the model said; returns what a caller may know."""
    logger.error("the model gave no valid answer: %s", error, extra={"fields": {"request_id": request_id}})
    return "the model gave no valid answer about this picture; the service's log has more under this request_id"


def document_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for the given statuses."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def document_not_served(what: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI response of a path for a model that does not serve its task.

    Args:
        what: of the model the path needs.
    """
    documented = document_problems(TaskNotServed.status)
    documented[TaskNotServed.status]["description"] = (
        f"`{TaskNotServed.code}`: the model was not made for {what}. The `tasks` of its contract (`GET /info`) say "
        "what it was made for; a reload may bring another model."
    )
    return documented


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every expected exception of an app with a problem; the unexpected ones are `service.api.middleware`'s."""
    app.exception_handler(RequestError)(_answer_ours)
    app.exception_handler(Unavailable)(_answer_ours)
    app.exception_handler(ModelOutputInvalid)(_answer_invalid_output)
    app.exception_handler(ClientDisconnected)(_answer_nobody)
    app.exception_handler(HTTPException)(_answer_http)


def make_problem_of(scope: Scope, error: RequestError | Unavailable) -> Response:
    """Build the answer to a request that fails as expected."""
    headers = None
    if isinstance(error, Unavailable):
        headers = {"Retry-After": str(error.retry_after_s)}
    elif isinstance(error, RequestTimeout):
        headers = {"Connection": "close"}  # what is still to come of the body belongs to no request
    elif isinstance(error, Unauthorized):
        headers = {"WWW-Authenticate": "Bearer"}
    return make_problem(scope, error.status, error.code, str(error), headers)


async def _answer_ours(request: Request, error: RequestError | Unavailable) -> Response:
    return make_problem_of(request.scope, error)


async def _answer_invalid_output(request: Request, error: ModelOutputInvalid) -> Response:
    detail = _log_invalid_output(request.scope["state"]["request_id"], error)
    return make_problem(request.scope, error.status, error.code, detail)


async def _answer_nobody(_: Request, __: ClientDisconnected) -> Response:
    return Response(status_code=_CLIENT_GONE)


async def _answer_http(request: Request, error: HTTPException) -> Response:
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    detail = _HINTS.get(error.status_code, HTTPStatus(error.status_code).description or str(error.detail))
    return make_problem(request.scope, error.status_code, code, detail, error.headers)
