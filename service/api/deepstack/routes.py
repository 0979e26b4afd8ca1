"""The routes of DeepStack and CodeProject.AI: their clients ask the same scheduler, within the same limits.

One model, whose contract has its name; `general` is CodeProject.AI's word for whichever there is. Form fields that are
not known here are passed over, as there: clients send more than they need.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.answers.cost import NOTHING
from service.api.bodies import Sent, read_pictures
from service.api.deepstack.answers import (
    DetectionAnswer,
    ModelsAnswer,
    Refusal,
    SceneAnswer,
    StatusAnswer,
    finish_detection,
    finish_scene,
)
from service.api.fields.numbers import read_fraction
from service.api.gates import KEY_FIELD
from service.api.respond import Question, Recipe, respond_to_one
from service.api.router import FormKeyRoute, HealthRoute, PictureRequest, declare
from service.api.scope import VISION_ROOT
from service.api.state import state_of
from service.engine.contract import ModelContract
from service.errors import InvalidParameter, UnknownModel

FIELD = "image"
THRESHOLD = "min_confidence"
# Of both servers, where a form says nothing.
DEFAULT_CONFIDENCE = 0.4
_GENERAL = "general"
_STATUS = f"{VISION_ROOT}/status"
_VISION = f"{VISION_ROOT}/vision"
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": "Why not", "model": Refusal} for status in (400, 404, 408, 413, 415, 422, 431, 500, 503)
}
_IMAGE = {"type": "string", "format": "binary", "description": "JPEG, PNG or WebP"}
_KEY = {"type": "string", "description": "looked at where the setting `deepstack_form_keys` says so"}
_CONFIDENCE = {
    "type": "number",
    "minimum": 0,
    "maximum": 1,
    "default": DEFAULT_CONFIDENCE,
    "description": "boxes that score less are left out",
}


def _form(**fields: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": [FIELD], "properties": {FIELD: _IMAGE, **fields, KEY_FIELD: _KEY}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


router = APIRouter(tags=["DeepStack and CodeProject.AI"], responses=_ERRORS)
_declare = partial(declare, router, FormKeyRoute, "POST")
_declare_detection = partial(_declare, response_model=DetectionAnswer, openapi_extra=_form(**{THRESHOLD: _CONFIDENCE}))
_declare_status = partial(declare, router, HealthRoute, "GET")


# Before `custom/{name}`, which would have it, too.
@router.post(f"{_VISION}/custom/list", operation_id="deepstack_models", summary="Which models there are")
async def list_models(request: Request) -> ModelsAnswer:
    """Name the one model that is served."""
    contract = state_of(request).require_scheduler().engine.contract
    return ModelsAnswer(models=[contract.name])


@_declare_detection(
    f"{_VISION}/detection", operation_id="deepstack_detection", summary="Which objects are where, for cameras"
)
@_declare_detection(
    f"{_VISION}/custom/{{name}}", operation_id="deepstack_custom", summary="Which objects are where, by a model's name"
)
async def detect(request: PictureRequest) -> Response:
    """Answer with boxes in whole pixels, best first, and no more of them than clients have room for."""
    question = Question.of(request, "deepstack", effort="little", field=FIELD)
    sent, question = await read_pictures(request, question)
    contract = _get_contract(request)
    _require_known(request.path_params.get("name", _GENERAL), contract)
    contract.require_task("detect")
    most = request.service.settings.deepstack_max_detections
    finish = partial(finish_detection, min_confidence=_read_confidence(sent), most=most)
    return await respond_to_one(request, question, Recipe(lambda _: finish, lambda _: NOTHING), sent.pictures[0])


@_declare(
    f"{_VISION}/scene",
    operation_id="deepstack_scene",
    response_model=SceneAnswer,
    openapi_extra=_form(),
    summary="What the whole picture shows, for cameras",
)
async def scene(request: PictureRequest) -> Response:
    """Answer with the most probable class."""
    question = Question.of(request, "deepstack", effort="little", field=FIELD)
    sent, question = await read_pictures(request, question)
    _get_contract(request).require_task("classify")
    return await respond_to_one(request, question, Recipe(lambda _: finish_scene, lambda _: NOTHING), sent.pictures[0])


@_declare_status(
    f"{_STATUS}/updateavailable", operation_id="deepstack_update", summary="No update is known, for cameras"
)
@_declare_status(f"{_STATUS}/ping", operation_id="deepstack_ping", summary="The model is loaded and warm, for cameras")
@_declare_status(_STATUS, operation_id="deepstack_status", summary="The model is loaded and warm, for cameras")
async def status(request: Request) -> StatusAnswer:
    """Answer 200 while pictures should be sent here; 503 before the model is warm, and from SIGTERM on."""
    state_of(request).require_ready()
    return StatusAnswer(message="ready")


def _get_contract(request: PictureRequest) -> ModelContract:
    return request.service.require_scheduler().engine.contract


def _require_known(name: str, contract: ModelContract) -> None:
    if name not in {_GENERAL, contract.name}:
        raise UnknownModel(f"there is no model {name[:80]!r}; there is {contract.name!r}")


def _read_confidence(sent: Sent) -> float:
    """Read the lowest score that is wanted; of several fields the last one counts."""
    text = dict(sent.fields).get(THRESHOLD, "")
    confidence = read_fraction(text) if text else DEFAULT_CONFIDENCE
    if confidence is None or confidence > 1:
        raise InvalidParameter(f"{THRESHOLD} is {text[:80]!r}; it takes numbers from 0 to 1, digits and a point")
    return confidence
