"""The friendly routes: a picture in, what was asked about it out. They differ in the last two steps only."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeAlias, TypeVar

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.responses import Response

from service.answers.cost import estimate_json, estimate_overlay, estimate_png
from service.answers.finish import (
    Look,
    Wanted,
    finish_json,
    finish_overlay,
    finish_png,
    require_drawable,
)
from service.answers.schemas import ClassifyResponse, DetectResponse, PictureResponse, PredictResponse, SegmentResponse
from service.api.bodies import read_pictures
from service.api.fields.preferences import prefers_png
from service.api.forms import FIELD_NAME
from service.api.parameters import (
    TIMEOUT_HEADER,
    ClassifyQuery,
    DetectQuery,
    OverlayQuery,
    PredictQuery,
    SegmentQuery,
    read_query,
)
from service.api.problems import Problem, document_not_served, document_problems
from service.api.respond import Question, Recipe, respond_to_each, respond_to_one
from service.api.router import PictureRequest, PictureRoute
from service.engine.contract import MODEL_TASKS, ModelContract, ModelTask
from service.errors import InvalidParameter
from service.scheduling.job import Effort
from service.settings import MAX_TIMEOUT_MS
from service.telemetry.metrics import Task

Asked = TypeVar("Asked", bound=BaseModel)
# What makes the answers, and how much that is.
Plan: TypeAlias = tuple[Recipe, Effort]

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"type": "object", "required": [FIELD_NAME], "properties": {FIELD_NAME: _BINARY["schema"]}}
_BODY: dict[str, Any] = {
    "parameters": [
        {
            "name": TIMEOUT_HEADER,
            "in": "header",
            "description": "milliseconds from the body's last byte until the answer is of no use any more",
            "schema": {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS},
        },
        {
            "name": "Cache-Control",
            "in": "header",
            "description": "`no-cache` asks for a forward pass that is shared with no other request",
            "schema": {"type": "string"},
        },
    ],
    "requestBody": {
        "required": True,
        "description": "The picture itself, or a form with it in the field `file`. The first bytes decide what it is; "
        "the declared type is a hint. JPEG, PNG or WebP; `GET /info` has the limits. 413 `too_many_pixels` and 422 "
        "`picture_too_costly` are said by the header, before anything is decoded. Other fields of a form are query "
        "parameters by another way. `Content-Encoding` may be gzip or deflate.",
        "content": {
            "image/jpeg": _BINARY,
            "image/png": _BINARY,
            "image/webp": _BINARY,
            "application/octet-stream": _BINARY,
            "multipart/form-data": {"schema": _FORM},
        },
    },
}
_FILES = {"type": "array", "minItems": 1, "items": _BINARY["schema"]}
_FORMS = {"type": "object", "required": [FIELD_NAME], "properties": {FIELD_NAME: _FILES}}
_BODIES = copy.deepcopy(_BODY)
_BODIES["requestBody"]["content"]["multipart/form-data"]["schema"] = _FORMS
_BODIES["requestBody"]["description"] += " A form may have several pictures, `max_files` of `GET /info` at most."
router = APIRouter(
    route_class=PictureRoute, tags=["pictures"], responses=document_problems(400, 408, 413, 415, 422, 431, 500, 503)
)


@router.post(
    "/segment",
    openapi_extra=_BODY,
    response_model=SegmentResponse,
    responses={
        200: {"description": "JSON; or, if Accept prefers image/png, the mask.", "content": {"image/png": _BINARY}},
        **document_not_served("segmentation"),
    },
    summary="Which class each pixel belongs to",
)
async def segment(request: PictureRequest, query: Annotated[SegmentQuery, Query()]) -> Response:
    """Answer with the share of each class and the mask, or with the mask alone as a palette PNG of class ids.

    Where Accept prefers image/png the PNG is the whole answer, whatever `mask` says.
    """
    contract = _get_contract(request)
    contract.require_task("segment")
    as_png = prefers_png(request.headers.get("accept"))

    def plan(query: SegmentQuery) -> Plan:
        as_json = _json(Wanted(("segment",), **query.model_dump()), SegmentResponse, contract)
        return _png(contract) if as_png else as_json, "some"

    response = await _respond(request, query, "segment", plan)
    response.headers["Vary"] = "Accept"
    return response


@router.post(
    "/detect",
    openapi_extra=_BODY,
    response_model=DetectResponse,
    responses=document_not_served("detection"),
    summary="Which objects are where",
)
async def detect(request: PictureRequest, query: Annotated[DetectQuery, Query()]) -> Response:
    """Answer with boxes in pixels of the upright original, highest score first."""
    contract = _get_contract(request)
    contract.require_task("detect")

    def plan(query: DetectQuery) -> Plan:
        return _json(Wanted(("detect",), **query.model_dump()), DetectResponse, contract), "little"

    return await _respond(request, query, "detect", plan)


@router.post(
    "/classify",
    openapi_extra=_BODY,
    response_model=ClassifyResponse,
    responses=document_not_served("classification"),
    summary="What the whole picture shows",
)
async def classify(request: PictureRequest, query: Annotated[ClassifyQuery, Query()]) -> Response:
    """Answer with the most probable classes."""
    contract = _get_contract(request)
    contract.require_task("classify")

    def plan(query: ClassifyQuery) -> Plan:
        return _json(Wanted(("classify",), **query.model_dump()), ClassifyResponse, contract), "little"

    return await _respond(request, query, "classify", plan)


@router.post(
    "/predict",
    openapi_extra=_BODIES,
    response_model=PredictResponse | list[PredictResponse | Problem],
    responses={
        200: {"description": "An object; or an array, if the form has several pictures."},
        **document_not_served("one of the `tasks` that are asked for"),
    },
    summary="All of it in one forward pass",
)
async def predict(request: PictureRequest, query: Annotated[PredictQuery, Query()]) -> Response:
    """Answer with the parts of the tasks asked for, or of all that the model serves; it runs once a picture.

    A form may have several fields `file`. The answer then is an array in their order, in which each picture has its
    object or, with status 200 all the same, its problem. `X-Unihead-Cache` lists where their passes came from (`error`
    where there is no answer), `Server-Timing` is that of the slowest.
    """
    contract = _get_contract(request)

    def plan(query: PredictQuery) -> Plan:
        tasks = _parse_tasks(query.tasks) if "tasks" in query.model_fields_set else None
        wanted = Wanted(tasks, **query.model_dump(exclude={"tasks"}))
        # Masks are what takes time.
        effort: Effort = "some" if "segment" in wanted.find_tasks(contract) else "little"
        return _json(wanted, PredictResponse, contract), effort

    return await _respond(request, query, "predict", plan, most=request.service.settings.max_files)


@router.post(
    "/overlay",
    openapi_extra=_BODY,
    response_class=Response,
    responses={
        200: {
            "description": "The picture, upright, with mask and boxes, or the one of them that the model serves.",
            "content": {"image/jpeg": _BINARY, "image/png": _BINARY, "image/webp": _BINARY},
        },
        **document_not_served("masks or boxes"),
    },
    summary="The picture with mask and boxes drawn over it",
)
async def overlay(request: PictureRequest, query: Annotated[OverlayQuery, Query()]) -> Response:
    """Answer with a picture to look at, in the format asked for, whatever Accept says.

    The pass is shared like that of the other paths; drawing takes about as long as a pass, and waits in the queue too.
    """
    require_drawable(_get_contract(request))
    limits = request.service.settings.picture_limits

    def plan(query: OverlayQuery) -> Plan:
        look = Look(**query.model_dump())
        recipe = Recipe(
            lambda picture: partial(finish_overlay, picture=picture, look=look, limits=limits),
            partial(estimate_overlay, look=look),
        )
        return recipe, "pass"

    return await _respond(request, query, "overlay", plan)


def _get_contract(request: PictureRequest) -> ModelContract:
    return request.service.require_scheduler().engine.contract


def _parse_tasks(text: str) -> tuple[ModelTask, ...]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in MODEL_TASKS]
    if unknown:
        raise InvalidParameter(
            f"tasks has {unknown[0][:80]!r}; known are {', '.join(MODEL_TASKS)}, separated by commas"
        )
    return tuple(task for task in MODEL_TASKS if task in names)


def _check_most(query: BaseModel, contract: ModelContract) -> None:
    """Hold a `max_detections` that was asked for against the model's own, if it serves boxes at all."""
    asked, most = query.max_detections if isinstance(query, DetectQuery) else 0, contract.max_detections
    if asked > most and "detect" in contract.tasks and "max_detections" in query.model_fields_set:
        raise InvalidParameter(f"max_detections is {asked}; the model gives {most} at most")


def _check_mask(query: BaseModel) -> None:
    """Hold the form of a mask that was asked for against several pictures: raw ids of 16 large ones are half a GB."""
    if isinstance(query, SegmentQuery) and query.mask == "raw":
        raise InvalidParameter("mask=raw is for one picture; ask for png or rle where a form has several")


def _png(contract: ModelContract) -> Recipe:
    return Recipe(lambda _: finish_png, partial(estimate_png, contract=contract))


def _json(wanted: Wanted, shape: type[PictureResponse], contract: ModelContract) -> Recipe:
    finish = partial(finish_json, wanted=wanted, shape=shape)
    return Recipe(lambda _: finish, partial(estimate_json, wanted=wanted, contract=contract))


async def _respond(
    request: PictureRequest, query: Asked, task: Task, plan: Callable[[Asked], Plan], *, most: int = 1
) -> Response:
    """Read the pictures of a request, `most` at most, and answer about them; several make an array.

    Args:
        request: whose body has not been read.
        query: that it asks with; fields of its form may say more.
        task: the route.
        plan: from a query to what makes the answers; refuses what does not go together.
        most: pictures in a form.
    """
    _check_most(query, _get_contract(request))
    recipe, effort = plan(query)
    question = Question.of(request, task, effort=effort)
    sent, question = await read_pictures(request, question, most=most)
    if sent.fields:
        query = read_query(request, type(query), sent.fields)
        _check_most(query, _get_contract(request))
        recipe, effort = plan(query)
        question = dataclasses.replace(question, effort=effort)
    first, *others = sent.pictures
    if not others:
        return await respond_to_one(request, question, recipe, first)
    _check_mask(query)
    return await respond_to_each(request, question, recipe, [first, *others])
