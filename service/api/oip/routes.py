"""The Open Inference Protocol v2 (REST): clients of Triton and KServe ask the same scheduler, within the same limits.

One model, `unihead`, of one version. It takes `image`, files as BYTES, or `images`, the network's own input; boxes and
masks are in pixels of what was sent.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from starlette.responses import Response

from service.answers.cost import NOTHING, AnswerCost
from service.api.bodies import read_body
from service.api.fields.packing import estimate_unpacking, pack, require_packing, unpack
from service.api.fields.preferences import choose_packing, find_packing
from service.api.gates import trace_pictures
from service.api.oip.metadata import (
    DATATYPES,
    ERRORS,
    FILES,
    MODEL,
    MODEL_PATH,
    VERSION,
    VERSION_PATH,
    describe_inputs,
    require_known,
)
from service.api.oip.tensors import MOST_JSON_VALUES, Piece, encode
from service.api.oip.wire import (
    HEADER_LENGTH,
    InferRequest,
    OutputTensor,
    read_json_length,
    read_request,
    write_answer,
)
from service.api.respond import Question, Reply, ask, look_at_each, require_all, run_beside
from service.api.router import PictureRequest, PictureRoute, declare
from service.engine.contract import ModelContract
from service.engine.postprocess import Answer
from service.engine.prepare import Look, Picture
from service.errors import MalformedRequest
from service.telemetry.timing import Stopwatch, format_server_timing

# So much is read and packed by the event loop itself, in half a millisecond.
_LITTLE_BYTES = 2**16
# Of a request while it is read: texts as JSON has them, and as bytes.
_READING_COPIES = 2
# Of a class id in JSON, with its comma.
_JSON_DIGITS = 4
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
router = APIRouter(tags=["Open Inference Protocol v2"], responses=ERRORS)
_declare_infer = partial(declare, router, PictureRoute, "POST", openapi_extra=_INFER_BODY)
# By name.
Outputs: TypeAlias = dict[str, Piece]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What each picture of a request is asked for.

    Attributes:
        outputs: by name, in the order they were asked for, and whether each comes as binary data.
        pictures: of the request.
        as_files: in pixels of the original; else as the network gives them.
        max_pixels: that all masks as binary data have together, if they are those of several pictures.
    """

    outputs: Mapping[str, bool]
    pictures: int
    as_files: bool
    max_pixels: int


@_declare_infer(f"{VERSION_PATH}/infer", operation_id="version_infer", summary="Ask this version about pictures")
@_declare_infer(f"{MODEL_PATH}/infer", operation_id="infer", summary="Ask the model about pictures")
async def infer(request: PictureRequest) -> Response:
    """Answer with the outputs named, or with all; each picture is a picture like any other to queue and cache."""
    require_known(request.path_params)
    state, headers, share = request.service, request.headers, request.share
    contract = state.require_scheduler().engine.contract
    question = Question.of(request, "infer")
    body = await read_body(request, share, state.settings)
    asked, question = await _read(request, question, body)
    del body
    wanted = _choose_outputs(asked, contract, state.settings.max_pixels)
    ends = time.monotonic() + question.timeout_s
    replies = await _ask_all(request, question, list(asked.values), wanted, contract)
    request.scope["state"]["cache_result"] = " ".join(sorted({reply.result for reply in replies}))
    content, answer_headers = _write(asked, wanted, [reply.made for reply in replies])
    packing = choose_packing(headers.get("accept-encoding", ""))
    if packing:
        packed = partial(pack, content, packing)
        if len(content) <= _LITTLE_BYTES:
            content = packed()
        else:
            question = replace(question, timeout_s=max(0.0, ends - time.monotonic()))
            content, _ = await run_beside(request, question, packed, work=len(content), again=True)
        answer_headers["Content-Encoding"] = packing
    share.settle(len(content))
    answer_headers["Vary"] = "Accept-Encoding"
    answer_headers["X-Unihead-Cache"] = ", ".join(reply.result for reply in replies)
    answer_headers["Server-Timing"] = format_server_timing(replies[0].watch.timings_ms)
    return Response(content, headers=answer_headers)


async def _read(request: PictureRequest, question: Question, body: bytes) -> tuple[InferRequest, Question]:
    """Unpack and read a request, in the queue of the pictures if it may take its time; and how long it then waits."""
    state, headers, share = request.service, request.headers, request.share
    packing, header_length = find_packing(headers.getlist("content-encoding")), headers.get(HEADER_LENGTH)
    require_packing(packing)
    limit, specs = state.settings.max_body_bytes, describe_inputs(state)

    def read() -> InferRequest:
        plain = unpack(body, packing, limit, share.take_body) if packing else body
        return read_request(plain, header_length, specs, raw_input=FILES)

    if packing or read_json_length(header_length, len(body)) > _LITTLE_BYTES:
        unpacking = estimate_unpacking(len(body), limit) if packing else 0
        work = unpacking + _READING_COPIES * (unpacking or len(body))
        asked, question = await run_beside(request, question, read, work=work)
    else:
        asked = read()
    if asked.timeout_us is not None:
        question = replace(question, timeout_s=asked.timeout_us / 1e6)
    return asked, question


def _choose_outputs(asked: InferRequest, contract: ModelContract, max_pixels: int) -> Wanted:
    known = tuple(contract.output_shapes)
    for name in asked.outputs:
        if name not in known:
            raise MalformedRequest(f"there is no output {name[:80]!r}; there are {', '.join(known)}")
    outputs = asked.outputs or dict.fromkeys(known, asked.binary)
    return Wanted(outputs, len(asked.values), asked.input == FILES, max_pixels)


async def _ask_all(
    request: PictureRequest, question: Question, pictures: Sequence[Picture], wanted: Wanted, contract: ModelContract
) -> list[Reply[Outputs]]:
    """Ask about each picture, once the room for all answers is foretold; where one fails, all do."""
    watches, share = [Stopwatch() for _ in pictures], request.share
    traces = trace_pictures(request.scope, watches)
    looks = require_all(await look_at_each(request, question, pictures, watches))
    costs = [_estimate(seen, wanted, contract) for seen in looks]
    share.expect(sum(cost.kept for cost in costs))
    collect = partial(_collect, wanted=wanted)
    jobs = (
        question.make_job(picture, collect, watch, trace, seen, cost.making, share)
        for picture, watch, trace, seen, cost in zip(pictures, watches, traces, looks, costs, strict=True)
    )
    tasks = [asyncio.ensure_future(ask(request.service, question, job)) for job in jobs]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise


def _estimate(seen: Look, wanted: Wanted, contract: ModelContract) -> AnswerCost:
    """Foretell what a picture's outputs cost in memory, of which only masks can be large.

    Raises:
        MalformedRequest: the masks of all pictures, if they are like this one's, are too large for one answer.
    """
    binary = wanted.outputs.get("mask")
    if binary is None:
        return NOTHING
    shape = (seen.height, seen.width) if wanted.as_files else contract.output_shapes["mask"]
    _check_mask(shape, wanted)
    text = math.prod(shape) * (1 if binary else _JSON_DIGITS)
    return AnswerCost(making=math.prod(shape) + 2 * text, kept=2 * text)  # of each picture, and all of them joined


def _collect(answer: Answer, watch: Stopwatch, *, wanted: Wanted) -> Outputs:
    """In a worker thread: write one picture's outputs, those that were asked for; laps `postprocess` and `encode`."""
    prediction, place, most = answer.prediction, answer.place, answer.contract.max_detections
    make: dict[str, Callable[[], NDArray[Any]]] = {
        "boxes": lambda: _pad(place.boxes_to_original(prediction.boxes), most),
        "scores": lambda: _pad(prediction.scores, most),
        "labels": lambda: _pad(prediction.labels, most),
        "num_detections": lambda: np.array(len(prediction.scores), dtype=np.int64),
        "mask": lambda: answer.mask() if wanted.as_files else prediction.mask,
        "class_probs": lambda: prediction.class_probs,
    }
    arrays = {name: make[name]() for name in wanted.outputs}
    watch.lap("postprocess")
    outputs = {name: encode(arrays[name], DATATYPES[name], binary=binary) for name, binary in wanted.outputs.items()}
    watch.lap("encode")
    return outputs


def _check_mask(shape: tuple[int, ...], wanted: Wanted) -> None:
    """Hold the masks of an answer against what one may carry, before they are made."""
    pixels = wanted.pictures * math.prod(shape)
    if not wanted.outputs["mask"] and pixels > MOST_JSON_VALUES:
        raise MalformedRequest(
            f"mask has {pixels} values, and a tensor in JSON {MOST_JSON_VALUES} at most; ask for it as binary data "
            "(binary_data of the output, or binary_data_output), or name the outputs that you need"
        )
    if wanted.pictures > 1 and pixels > wanted.max_pixels:
        raise MalformedRequest(
            f"the masks of {wanted.pictures} pictures have {pixels} pixels, and {wanted.max_pixels} are the limit for "
            "one answer; ask for fewer pictures at once, or name the outputs that you need"
        )


def _pad(values: NDArray[Any], length: int) -> NDArray[Any]:
    padded = np.zeros((length, *values.shape[1:]), dtype=values.dtype)
    padded[: len(values)] = values
    return padded


def _write(asked: InferRequest, wanted: Wanted, results: Sequence[Outputs]) -> tuple[bytes, dict[str, str]]:
    """Put all pictures' outputs together; returns the body and its headers."""
    tensors = []
    for name, binary in wanted.outputs.items():
        pieces = [outputs[name] for outputs in results]
        if len({piece.shape for piece in pieces}) > 1:
            raise MalformedRequest(f"the pictures have different sizes; ask for their {name} one by one")
        tensors.append(OutputTensor(name, DATATYPES[name], pieces, binary))
    head = {"model_name": MODEL, "model_version": VERSION, **({} if asked.id is None else {"id": asked.id})}
    content, json_bytes = write_answer(head, tensors)
    headers = {"Content-Type": "application/json" if json_bytes is None else "application/octet-stream"}
    if json_bytes is not None:
        headers[HEADER_LENGTH] = str(json_bytes)
    return content, headers
