"""The Open Inference Protocol v2 (REST): clients of Triton and KServe ask the same scheduler, within the same limits.

One model, `unihead`, of one version. It takes `image`, files as BYTES, or `images`, the network's own input; boxes and
masks are in pixels of what was sent.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from fastapi import APIRouter
from starlette.responses import Response

from service.api.bodies import read_body
from service.api.fields.packing import estimate_unpacking, pack, require_packing, unpack
from service.api.fields.preferences import choose_packing, find_packing
from service.api.oip.asking import Outputs, Wanted, ask_all, choose_outputs
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
from service.api.oip.wire import (
    HEADER_LENGTH,
    InferRequest,
    OutputTensor,
    read_json_length,
    read_request,
    write_answer,
)
from service.api.respond import Question, run_beside
from service.api.router import PictureRequest, PictureRoute, declare
from service.telemetry.timing import format_server_timing

# So much is read and packed by the event loop itself, in half a millisecond.
_LITTLE_BYTES = 2**16
# Of a request while it is read: texts as JSON has them, and as bytes.
_READING_COPIES = 2
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
    wanted = choose_outputs(asked, contract, state.settings.max_pixels)
    ends = time.monotonic() + question.timeout_s
    replies = await ask_all(request, question, asked, wanted, contract)
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


def _write(asked: InferRequest, wanted: Wanted, results: Sequence[Outputs]) -> tuple[bytes, dict[str, str]]:
    """Put all pictures' outputs together; returns the body and its headers."""
    tensors = [
        OutputTensor(name, DATATYPES[name], [outputs[name] for outputs in results], binary)
        for name, binary in wanted.outputs.items()
    ]
    head = {"model_name": MODEL, "model_version": VERSION, **({} if asked.id is None else {"id": asked.id})}
    content, json_bytes = write_answer(head, tensors)
    headers = {"Content-Type": "application/json" if json_bytes is None else "application/octet-stream"}
    if json_bytes is not None:
        headers[HEADER_LENGTH] = str(json_bytes)
    return content, headers
