"""The Open Inference Protocol v2 (REST): clients of Triton and KServe ask the same scheduler, within the same limits.

One model, `unihead`, of one version. It takes `image`, files as BYTES, or `images`, the network's own input; boxes and
masks are in pixels of what was sent.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from service.api.bodies import read_body
from service.api.gates import trace_pictures
from service.api.oip.tensors import BYTES, Tensor
from service.api.oip.wire import HEADER_LENGTH, InferRequest, compress, decompress, read_request, write_answer
from service.api.respond import Question, ask
from service.api.router import HealthRoute, PictureRequest, PictureRoute, declare
from service.api.scope import OIP_ROOT
from service.api.state import state_of
from service.engine.contract import ModelContract
from service.engine.postprocess import Answer
from service.engine.prepare import Picture
from service.errors import MalformedRequest, UnknownModel
from service.machine import find_version
from service.settings import MAX_TIMEOUT_MS
from service.telemetry.timing import Stopwatch, format_server_timing

MODEL, VERSION = "unihead", "1"
FILES, SQUARES = "image", "images"
_DATATYPES = {
    "boxes": "FP32",
    "scores": "FP32",
    "labels": "INT64",
    "num_detections": "INT64",
    "mask": "UINT8",
    "class_probs": "FP32",
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": "Why not",
        "content": {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}},
    }
    for status in (400, 404, 408, 413, 415, 422, 431, 500, 503)
}
_MODEL_PATH = f"{OIP_ROOT}/models/{{model}}"
_VERSION_PATH = f"{_MODEL_PATH}/versions/{{version}}"
_INFER_BODY = {
    "requestBody": {
        "required": True,
        "description": "An inference request as JSON, perhaps followed by binary tensors; or, with "
        f"`{HEADER_LENGTH}: 0`, nothing but a picture.",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
router = APIRouter(tags=["Open Inference Protocol v2"], responses=_ERRORS)
_declare_infer = partial(declare, router, PictureRoute, "POST", openapi_extra=_INFER_BODY)
Outputs: TypeAlias = dict[str, NDArray[Any]]


@router.get(OIP_ROOT, summary="What serves here")
async def server() -> dict[str, Any]:
    """Name the server and the protocol's extensions that it knows."""
    return {"name": "unihead", "version": find_version("unihead"), "extensions": ["binary_tensor_data"]}


@declare(router, HealthRoute, "GET", f"{OIP_ROOT}/health/live", summary="The process answers")
async def live() -> dict[str, bool]:
    """Answer as long as the event loop turns."""
    return {"live": True}


@declare(router, HealthRoute, "GET", f"{OIP_ROOT}/health/ready", summary="The model is loaded and warm")
async def ready(request: Request) -> dict[str, bool]:
    """Answer 200 while pictures should be sent here; 503 before the model is warm, and from SIGTERM on."""
    state_of(request).require_ready()
    return {"live": True, "ready": True}


@router.get(f"{_VERSION_PATH}/ready", summary="This version is loaded and warm")
@router.get(f"{_MODEL_PATH}/ready", summary="The model is loaded and warm")
async def model_ready(request: Request) -> dict[str, Any]:
    """Answer 200 while pictures should be sent here; 503 before the model is warm, and from SIGTERM on."""
    _require_known(request.path_params)
    state_of(request).require_ready()
    return {"name": MODEL, "ready": True}


@router.get(_VERSION_PATH, summary="Inputs and outputs of this version")
@router.get(_MODEL_PATH, summary="Inputs and outputs of the model")
async def model_metadata(request: Request) -> dict[str, Any]:
    """Say what the model takes and gives, the outputs of the tasks that it serves; -1 is any size."""
    _require_known(request.path_params)
    contract = state_of(request).require_scheduler().engine.contract
    size = contract.input_size
    # A mask is as large as the picture.
    shapes = {name: (-1, -1) if name == "mask" else shape for name, shape in contract.output_shapes.items()}
    return {
        "name": MODEL,
        "versions": [VERSION],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": FILES, "datatype": BYTES, "shape": [-1]},
            {"name": SQUARES, "datatype": "UINT8", "shape": [-1, size, size, 3]},
        ],
        "outputs": [
            {"name": name, "datatype": _DATATYPES[name], "shape": [-1, *shape]} for name, shape in shapes.items()
        ],
    }


@_declare_infer(f"{_VERSION_PATH}/infer", summary="Ask this version about pictures")
@_declare_infer(f"{_MODEL_PATH}/infer", summary="Ask the model about pictures")
async def infer(request: PictureRequest) -> Response:
    """Answer with the outputs named, or with all; each picture is a picture like any other to queue and cache."""
    _require_known(request.path_params)
    state, headers = request.service, request.headers
    settings, contract = state.settings, state.require_scheduler().engine.contract
    question = Question.of(request, "infer")
    with state.bodies.hold() as held:
        body = await read_body(request, held, settings)
        # In a thread: JSON of a million numbers takes the event loop's time.
        asked = await asyncio.to_thread(
            _read, body, headers.get("content-encoding", ""), headers.get(HEADER_LENGTH), settings.max_body_bytes
        )
        pictures, names = _read_pictures(asked, contract), _read_names(asked, contract)
        question = dataclasses.replace(question, timeout_s=_read_timeout_s(asked, question.timeout_s))
        watches = [Stopwatch() for _ in pictures]
        traces = trace_pictures(request.scope, watches)
        collect = partial(_collect, names=names, as_files=asked.inputs[0].name == FILES)
        tasks = [
            asyncio.ensure_future(ask(state, question, picture, collect, watch, trace))
            for picture, watch, trace in zip(pictures, watches, traces, strict=True)
        ]
        try:
            answers = await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise
    request.scope["state"]["cache_result"] = " ".join(sorted({answer.result for answer in answers}))
    content, answer_headers = await asyncio.to_thread(
        _write, asked, names, [answer.made for answer in answers], headers.get("accept-encoding", "")
    )
    answer_headers["X-Unihead-Cache"] = ", ".join(answer.result for answer in answers)
    answer_headers["Server-Timing"] = format_server_timing(watches[0].timings_ms)
    return Response(content, headers=answer_headers)


def _require_known(path: Mapping[str, str]) -> None:
    if path["model"] != MODEL:
        raise UnknownModel(f"there is no model {path['model'][:80]!r} here; the one that is here is {MODEL!r}")
    if path.get("version", VERSION) != VERSION:
        raise UnknownModel(f"{MODEL} has no version {path['version'][:80]!r}; it has {VERSION!r}")


def _read(body: bytes, encoding: str, header_length: str | None, limit: int) -> InferRequest:
    return read_request(decompress(body, encoding, limit), header_length, raw_input=FILES)


def _read_pictures(asked: InferRequest, contract: ModelContract) -> list[Picture]:
    if len(asked.inputs) != 1:
        raise MalformedRequest(f"the request has {len(asked.inputs)} inputs; send {FILES!r} or {SQUARES!r}")
    (tensor,) = asked.inputs
    if tensor.name == FILES:
        wanted, pictures = f"{BYTES} of the shape [N]", _read_files(tensor)
    elif tensor.name == SQUARES:
        size = contract.input_size
        fits = tensor.datatype == "UINT8" and tensor.shape[1:] == (size, size, 3)
        wanted = f"UINT8 of the shape [N, {size}, {size}, 3]"
        pictures = [np.ascontiguousarray(one) for one in tensor.values] if fits else []
    else:
        raise MalformedRequest(f"there is no input {tensor.name[:80]!r}; send {FILES!r} or {SQUARES!r}")
    if not pictures:
        shape = list(tensor.shape)
        raise MalformedRequest(f"{tensor.name} is {tensor.datatype} of the shape {shape}; it takes {wanted}, N from 1")
    return pictures


def _read_files(tensor: Tensor) -> list[Picture]:
    """Take the files out of an input; JSON cannot carry their bytes, so there they are base64."""
    files: list[Picture] = []
    for value in tensor.values if tensor.datatype == BYTES else ():
        try:
            files.append(base64.b64decode(value, validate=True) if tensor.as_text else value)
        except ValueError as error:
            raise MalformedRequest(f"an element of {tensor.name} is text, and no base64: {error}") from error
    return files


def _read_names(asked: InferRequest, contract: ModelContract) -> tuple[str, ...]:
    """The outputs wanted, in the order they were asked for."""
    known = tuple(contract.output_shapes)
    for name in asked.outputs:
        if name not in known:
            raise MalformedRequest(f"there is no output {name[:80]!r}; there are {', '.join(known)}")
    return tuple(asked.outputs) or known


def _read_timeout_s(asked: InferRequest, default_s: float) -> float:
    """The protocol's own deadline, `timeout` in microseconds, where it is given."""
    timeout_us = asked.parameters.get("timeout")
    if timeout_us is None:
        return default_s
    if not isinstance(timeout_us, int) or not 0 < timeout_us <= MAX_TIMEOUT_MS * 1000:
        raise MalformedRequest(f"timeout is {timeout_us!r}; it takes microseconds, 1 to {MAX_TIMEOUT_MS * 1000}")
    return timeout_us / 1e6


def _collect(answer: Answer, watch: Stopwatch, *, names: Collection[str], as_files: bool) -> Outputs:
    """In a worker thread: one picture's outputs, those that were asked for; laps `postprocess`.

    Args:
        answer: of the pass.
        watch: of the picture.
        names: of the outputs.
        as_files: in pixels of the original; else as the network gives them.
    """
    prediction, place, most = answer.prediction, answer.place, answer.contract.max_detections
    make: dict[str, Callable[[], NDArray[Any]]] = {
        "boxes": lambda: _pad(place.boxes_to_original(prediction.boxes), most),
        "scores": lambda: _pad(prediction.scores, most),
        "labels": lambda: _pad(prediction.labels, most),
        "num_detections": lambda: np.array(len(prediction.scores), dtype=np.int64),
        "mask": lambda: answer.mask() if as_files else prediction.mask,
        "class_probs": lambda: prediction.class_probs,
    }
    outputs = {name: make[name]() for name in names}
    watch.lap("postprocess")
    return outputs


def _pad(values: NDArray[Any], length: int) -> NDArray[Any]:
    padded = np.zeros((length, *values.shape[1:]), dtype=values.dtype)
    padded[: len(values)] = values
    return padded


def _write(
    asked: InferRequest, names: tuple[str, ...], results: list[Outputs], accepted: str
) -> tuple[bytes, dict[str, str]]:
    """Put all pictures' outputs together; returns the body and its headers."""
    tensors = []
    for name in names:
        values = [outputs[name] for outputs in results]
        if len({one.shape for one in values}) > 1:
            raise MalformedRequest(f"the pictures have different sizes; ask for their {name} one by one")
        stacked = np.stack(values)
        tensors.append(Tensor(name, _DATATYPES[name], stacked.shape, stacked))
    head = {"model_name": MODEL, "model_version": VERSION, **({} if asked.id is None else {"id": asked.id})}
    content, json_bytes = write_answer(head, tensors, [asked.outputs.get(name, asked.binary) for name in names])
    content, encoding = compress(content, accepted)
    headers = {"Content-Type": "application/json" if json_bytes is None else "application/octet-stream"}
    if json_bytes is not None:
        headers[HEADER_LENGTH] = str(json_bytes)
    if encoding:
        headers["Content-Encoding"] = encoding
    headers["Vary"] = "Accept-Encoding"
    return content, headers
