"""The methods of the Open Inference Protocol v2: what is answered to each message, by the code that answers HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias, TypeVar

from google.protobuf.message import DecodeError, Message

from service.api.forms import FIELD_NAME
from service.api.grpc import open_inference_pb2 as protocol
from service.api.grpc.calls import Call, Method
from service.api.grpc.messages import read_request, walk, write_response
from service.api.oip.asking import ask_all, choose_outputs
from service.api.oip.metadata import MODEL, VERSION, describe_inputs, describe_model, require_known
from service.api.parameters import wants_fresh
from service.api.respond import Question, run_beside
from service.errors import MalformedRequest
from service.machine import find_version
from service.telemetry.timing import format_server_timing

SERVICE = "inference.GRPCInferenceService"
# So much is read by the event loop itself, in half a millisecond: numbers one by one, and what is only copied.
_LITTLE_CONTENTS_BYTES, _LITTLE_BYTES = 2**16, 2**20
# Of `contents` while they are read: which of their bytes belong together, and the numbers.
_READING_COPIES = 4

Request = TypeVar("Request", bound=Message)
Answer: TypeAlias = Callable[[Call, Request], Message]


def list_methods() -> list[Method]:
    """List what the service answers."""

    def little(name: str, kind: type[Request], answer: Answer[Request], *, is_open: bool = False) -> Method:
        return Method(f"/{SERVICE}/{name}", partial(_answer, kind, answer), is_open=is_open)

    return [
        little("ServerLive", protocol.ServerLiveRequest, _tell_live, is_open=True),
        little("ServerReady", protocol.ServerReadyRequest, _tell_ready, is_open=True),
        little("ModelReady", protocol.ModelReadyRequest, _tell_model_ready),
        little("ServerMetadata", protocol.ServerMetadataRequest, _describe_server),
        little("ModelMetadata", protocol.ModelMetadataRequest, _describe_model),
        Method(f"/{SERVICE}/ModelInfer", infer, takes_pictures=True),
    ]


async def _answer(kind: type[Request], answer: Answer[Request], call: Call, message: bytes) -> bytes:
    try:
        request = kind.FromString(message)
    except DecodeError as error:
        raise MalformedRequest(f"the message is no {kind.DESCRIPTOR.name}: {str(error)[:200]}") from error
    return answer(call, request).SerializeToString()


def _tell_live(_: Call, __: protocol.ServerLiveRequest) -> protocol.ServerLiveResponse:
    return protocol.ServerLiveResponse(live=True)


def _tell_ready(call: Call, _: protocol.ServerReadyRequest) -> protocol.ServerReadyResponse:
    return protocol.ServerReadyResponse(ready=call.service.is_ready())


def _tell_model_ready(call: Call, request: protocol.ModelReadyRequest) -> protocol.ModelReadyResponse:
    is_known = request.name == MODEL and request.version in {"", VERSION}
    return protocol.ModelReadyResponse(ready=is_known and call.service.is_ready())


def _describe_server(_: Call, __: protocol.ServerMetadataRequest) -> protocol.ServerMetadataResponse:
    return protocol.ServerMetadataResponse(name=MODEL, version=find_version("unihead"))


def _describe_model(call: Call, request: protocol.ModelMetadataRequest) -> protocol.ModelMetadataResponse:
    require_known({"model": request.name, "version": request.version or VERSION})
    return protocol.ModelMetadataResponse(**describe_model(call.service))


async def infer(call: Call, message: bytes) -> bytes:
    """Answer with the outputs named, or with all; each picture is a picture like any other to queue and cache.

    Raises:
        RequestError, Unavailable, ModelOutputInvalid: as over HTTP.
    """
    state = call.service
    settings, contract = state.settings, state.require_scheduler().engine.contract
    question = Question(
        task="infer",
        field=FIELD_NAME,
        timeout_s=call.find_timeout_s(),
        fresh=wants_fresh(call.find("cache-control")),
        owner="" if settings.share_across_keys else call.key_id,
        effort="some",
        request_id=call.request_id,
    )
    walked = walk(message)
    read = partial(read_request, walked, describe_inputs(state))
    if walked.contents_bytes > _LITTLE_CONTENTS_BYTES or len(message) > _LITTLE_BYTES:
        work = len(message) + _READING_COPIES * walked.contents_bytes
        asked, question = await run_beside(call, question, read, work=work)
    else:
        asked = read()
    del message, walked, read
    if asked.timeout_us is not None:
        question = replace(question, timeout_s=min(question.timeout_s, asked.timeout_us / 1e6))
    wanted = choose_outputs(asked, contract, settings.max_pixels)
    replies = await ask_all(call, question, asked, wanted, contract)
    call.cache = [str(reply.result) for reply in replies]
    call.timings = format_server_timing(replies[0].watch.timings_ms)
    return write_response(asked.id or "", list(wanted.outputs), [reply.made for reply in replies])
