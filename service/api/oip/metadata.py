"""What clients of the Open Inference Protocol ask beside inference: health, metadata, configuration, statistics.

Configuration and statistics are Triton's extensions `model_configuration` and `statistics`; the words are theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from service.api.oip.tensors import BYTES, UINT8, InputSpec
from service.api.router import HealthRoute, declare
from service.api.scope import OIP_ROOT
from service.api.state import ServiceState, state_of
from service.engine.contract import ModelContract
from service.errors import UnknownModel
from service.machine import find_version

MODEL, VERSION = "unihead", "1"
FILES, SQUARES = "image", "images"
PLATFORM = "onnx_onnxv1"
DATATYPES = {
    "boxes": "FP32",
    "scores": "FP32",
    "labels": "INT64",
    "num_detections": "INT64",
    "mask": "UINT8",
    "class_probs": "FP32",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": "Why not",
        "content": {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}},
    }
    for status in (400, 404, 408, 413, 415, 422, 431, 500, 503)
}
MODEL_PATH = f"{OIP_ROOT}/models/{{model}}"
VERSION_PATH = f"{MODEL_PATH}/versions/{{version}}"
router = APIRouter(tags=["Open Inference Protocol v2"], responses=ERRORS)


@router.get(OIP_ROOT, operation_id="server_metadata", summary="What serves here")
async def server() -> dict[str, Any]:
    """Name the server and the protocol's extensions that it knows."""
    extensions = ["binary_tensor_data", "model_configuration", "statistics"]
    return {"name": "unihead", "version": find_version("unihead"), "extensions": extensions}


@declare(
    router, HealthRoute, "GET", f"{OIP_ROOT}/health/live", operation_id="server_live", summary="The process answers"
)
async def live() -> dict[str, bool]:
    """Answer as long as the event loop turns."""
    return {"live": True}


@declare(
    router,
    HealthRoute,
    "GET",
    f"{OIP_ROOT}/health/ready",
    operation_id="server_ready",
    summary="The model is loaded and warm",
)
async def ready(request: Request) -> dict[str, bool]:
    """Answer 200 while pictures should be sent here; 503 before the model is warm, and from SIGTERM on."""
    state_of(request).require_ready()
    return {"live": True, "ready": True}


@router.get(f"{OIP_ROOT}/models/stats", operation_id="all_stats", summary="What all models have done")
@router.get(f"{VERSION_PATH}/stats", operation_id="version_stats", summary="What this version has done")
@router.get(f"{MODEL_PATH}/stats", operation_id="model_stats", summary="What the model has done")
async def stats(request: Request) -> dict[str, Any]:
    """Count pictures and nanoseconds, those of all routes, in the words of Triton's statistics extension."""
    require_known(request.path_params)
    state = state_of(request)
    return {"model_stats": [{"name": MODEL, "version": VERSION, **state.metrics.statistics.describe()}]}


@router.get(f"{VERSION_PATH}/ready", operation_id="version_ready", summary="This version is loaded and warm")
@router.get(f"{MODEL_PATH}/ready", operation_id="model_ready", summary="The model is loaded and warm")
async def model_ready(request: Request) -> dict[str, Any]:
    """Answer 200 while pictures should be sent here; 503 before the model is warm, and from SIGTERM on."""
    require_known(request.path_params)
    state_of(request).require_ready()
    return {"name": MODEL, "ready": True}


@router.get(f"{VERSION_PATH}/config", operation_id="version_config", summary="How this version is served")
@router.get(f"{MODEL_PATH}/config", operation_id="model_config", summary="How the model is served")
async def config(request: Request) -> dict[str, Any]:
    """Write the configuration as Triton's ModelConfig; shapes are whole, which is what `max_batch_size` of 0 says."""
    require_known(request.path_params)
    state = state_of(request)
    settings, contract = state.settings, state.require_scheduler().engine.contract
    specs = describe_inputs(state)
    found: dict[str, Any] = {
        "name": MODEL,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,
        "input": [
            {"name": name, "data_type": _to_config_type(spec.datatype), "dims": [-1, *spec.sizes], "optional": True}
            for name, spec in specs.items()
        ],
        "output": [
            {"name": name, "data_type": _to_config_type(DATATYPES[name]), "dims": shape}
            for name, shape in _list_outputs(contract).items()
        ],
        "instance_group": [{"name": MODEL, "kind": "KIND_CPU", "count": settings.cpu_threads}],
        "response_cache": {"enable": settings.cache_max_bytes > 0 and settings.cache_max_age_s > 0},
        "parameters": {"unihead_version": {"string_value": contract.version}},
    }
    if settings.max_batch > 1:
        delay_us = round(settings.max_delay_ms * 1000)
        found["dynamic_batching"] = {
            "preferred_batch_size": [settings.max_batch],
            "max_queue_delay_microseconds": delay_us,
        }
    return found


@router.get(VERSION_PATH, operation_id="version_metadata", summary="Inputs and outputs of this version")
@router.get(MODEL_PATH, summary="Inputs and outputs of the model")
async def model_metadata(request: Request) -> dict[str, Any]:
    """Say what the model takes and gives, the outputs of the tasks that it serves; -1 is any size."""
    require_known(request.path_params)
    return describe_model(state_of(request))


def describe_model(state: ServiceState) -> dict[str, Any]:
    """Say what the model takes and gives, in the protocol's words; -1 is any size.

    Raises:
        NotReady: no model is loaded and warm.
    """
    outputs = _list_outputs(state.require_scheduler().engine.contract)
    return {
        "name": MODEL,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [
            {"name": name, "datatype": spec.datatype, "shape": [-1, *spec.sizes]}
            for name, spec in describe_inputs(state).items()
        ],
        "outputs": [{"name": name, "datatype": DATATYPES[name], "shape": shape} for name, shape in outputs.items()],
    }


def require_known(path: Mapping[str, str]) -> None:
    """Return if a path is about what is served.

    Args:
        path: its parameters, `model` and `version`, where it has them.

    Raises:
        UnknownModel: it names another model or version.
    """
    model, version = path.get("model", MODEL), path.get("version", VERSION)
    if model != MODEL:
        raise UnknownModel(f"there is no model {model[:80]!r} here; the one that is here is {MODEL!r}")
    if version != VERSION:
        raise UnknownModel(f"{MODEL} has no version {version[:80]!r}; it has {VERSION!r}")


def describe_inputs(state: ServiceState) -> dict[str, InputSpec]:
    """Say what each input takes, as many pictures as a form may have."""
    size, most = state.require_scheduler().engine.contract.input_size, state.settings.max_files
    return {FILES: InputSpec(BYTES, (), most), SQUARES: InputSpec(UINT8, (size, size, 3), most)}


def _list_outputs(contract: ModelContract) -> dict[str, list[int]]:
    """Shapes of the outputs; -1 is the number of pictures, and each side of masks, which are as large as those."""
    return {name: [-1, -1, -1] if name == "mask" else [-1, *shape] for name, shape in contract.output_shapes.items()}


def _to_config_type(datatype: str) -> str:
    return "TYPE_STRING" if datatype == BYTES else f"TYPE_{datatype}"
