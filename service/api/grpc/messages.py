"""Inference requests and responses as bytes: what is long in them is cut out, and never copied by the protobuf library.

A message of a few megabytes can have millions of fields, each of which protobuf makes an object of a hundred bytes.
So a message is walked through first: it has few fields, and all but the values of tensors are short.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError

from service.api.grpc.open_inference_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
)
from service.api.oip.metadata import DATATYPES, MODEL, VERSION, require_known
from service.api.oip.tensors import BYTES, Files, InputSpec, Piece, Squares, split_elements
from service.api.oip.wire import InferRequest
from service.errors import MalformedRequest
from service.settings import MAX_TIMEOUT_MS

# Of a request, the values of tensors aside; protobuf makes a hundred times as much of them at most.
MOST_WORDS_BYTES = 2**14
_MOST_FIELDS = 256
# Bytes of memory that one byte of values inside the message may take: an empty element of bytes_contents has two.
VALUES_COPIES = 16
_STEP_VALUES = 2**14
_MOST_SIZES, _MOST_SIZE = 4, 2**31
_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5
_INPUTS = ModelInferRequest.INPUTS_FIELD_NUMBER
_RAW_INPUTS = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_CONTENTS = ModelInferRequest.InferInputTensor.CONTENTS_FIELD_NUMBER
_RAW_OUTPUTS = ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_NOT_SERVED = {
    "shared_memory_region": "is said to lie in shared memory, which is not served; send it in the request",
    "classification": "is asked for as classes, which is not served; ask for class_probs and sort them",
}


@dataclass(frozen=True, slots=True)
class Walked:
    """A message, walked through.

    Attributes:
        rest: the message without `raw_input_contents`.
        raw: each of those.
        values_bytes: of the values of tensors in `rest`.
    """

    rest: bytes
    raw: list[memoryview]
    values_bytes: int


def walk(message: bytes) -> Walked:
    """Take a ModelInferRequest apart, without reading more than the numbers and lengths of its fields.

    Raises:
        MalformedRequest: it is none, or has more fields or words than an inference request needs.
    """
    view, rest, raw, values, fields = memoryview(message), [], [], 0, 0
    for begin, start, end, number, kind in _list_fields(view, 0, len(view)):
        fields += 1
        if number == _RAW_INPUTS and kind == _LENGTH:
            raw.append(view[start:end])
            continue
        rest.append(view[begin:end])
        if number == _INPUTS and kind == _LENGTH:
            for _, inner_start, inner_end, inner_number, inner_kind in _list_fields(view, start, end):
                fields += 1
                if inner_number == _CONTENTS and inner_kind == _LENGTH:
                    values += inner_end - inner_start
    words = sum(map(len, rest)) - values
    if words > MOST_WORDS_BYTES:
        raise MalformedRequest(
            f"the message has {words} bytes beside the values of tensors, and may have {MOST_WORDS_BYTES}"
        )
    return Walked(b"".join(rest), raw, values)


def _list_fields(view: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """The fields of a message: where each begins, where its value starts and ends, its number and wire type."""
    for _ in range(_MOST_FIELDS):
        if at == end:
            return
        begin = at
        key, at = _read_varint(view, at, end)
        number, kind = key >> 3, key & 7
        start = at
        if kind == _VARINT:
            _, at = _read_varint(view, at, end)
        elif kind == _LENGTH:
            length, start = _read_varint(view, at, end)
            at = start + length
        elif kind in {_FIXED_32, _FIXED_64}:
            at += 4 if kind == _FIXED_32 else 8
        else:
            raise MalformedRequest(f"the message is no ModelInferRequest: it has a field of the wire type {kind}")
        if at > end:
            raise MalformedRequest("the message is no ModelInferRequest: it ends within a field")
        yield begin, start, at, number, kind
    raise MalformedRequest(f"the message has more than {_MOST_FIELDS} fields")


def _read_varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """Read a number; returns it, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
            return value, at
    raise MalformedRequest("the message is no ModelInferRequest: a number in it has no end")


def read_request(walked: Walked, specs: Mapping[str, InputSpec]) -> InferRequest:
    """Read an inference request.

    Args:
        walked: the message.
        specs: what each input takes.

    Raises:
        UnknownModel: another model is asked, or another version.
        MalformedRequest: says what is wrong.
    """
    try:
        message = ModelInferRequest.FromString(walked.rest)
    except DecodeError as error:
        raise MalformedRequest(f"the message is no ModelInferRequest: {str(error)[:200]}") from error
    require_known({"model": message.model_name, "version": message.model_version or VERSION})
    known = " or ".join(map(repr, specs))
    if len(message.inputs) != 1:
        raise MalformedRequest(f"the request has {len(message.inputs)} inputs; it takes one, {known}")
    (entry,) = message.inputs
    if entry.name not in specs:
        raise MalformedRequest(f"there is no input {entry.name[:80]!r}; send {known}")
    _refuse_not_served(entry.name, entry.parameters)
    for output in message.outputs:
        _refuse_not_served(output.name, output.parameters)
    values = _read_values(entry, walked.raw, specs[entry.name])
    outputs = dict.fromkeys((output.name for output in message.outputs), True)
    return InferRequest(entry.name, values, outputs, True, message.id, _read_timeout_us(message.parameters))


def _refuse_not_served(name: str, parameters: Mapping[str, InferParameter]) -> None:
    for parameter, why in _NOT_SERVED.items():
        if parameter in parameters:
            raise MalformedRequest(f"{name[:80]!r} {why}")


def _read_values(
    entry: ModelInferRequest.InferInputTensor, raw: Sequence[memoryview], spec: InputSpec
) -> Files | Squares:
    """Read the tensor of a request, once its shape is known to be what is wanted."""
    name, shape = entry.name, tuple(entry.shape)
    if not 1 <= len(shape) <= _MOST_SIZES or not all(0 <= size < _MOST_SIZE for size in shape):
        raise MalformedRequest(f"the shape of {name!r} is not one to {_MOST_SIZES} whole numbers from 0")
    spec.require(name, entry.datatype, shape)
    if entry.HasField("contents") and raw:
        raise MalformedRequest(f"{name!r} has both contents and raw_input_contents")
    if entry.HasField("contents"):
        return _read_contents(name, entry.contents, spec, shape)
    if len(raw) != 1:
        raise MalformedRequest(f"raw_input_contents has {len(raw)} elements, and there is one input")
    return _read_raw(name, raw[0], spec, shape)


def _read_raw(name: str, raw: memoryview, spec: InputSpec, shape: tuple[int, ...]) -> Files | Squares:
    if spec.datatype == BYTES:
        return split_elements(name, raw, math.prod(shape))
    if len(raw) != math.prod(shape):
        raise MalformedRequest(f"{name!r} has {len(raw)} bytes; its shape {list(shape)} says otherwise")
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _read_contents(
    name: str, contents: InferTensorContents, spec: InputSpec, shape: tuple[int, ...]
) -> Files | Squares:
    count = math.prod(shape)
    wanted = "bytes_contents" if spec.datatype == BYTES else "uint_contents"
    found = getattr(contents, wanted)
    if len(found) != count or len(contents.ListFields()) != (count > 0):
        raise MalformedRequest(f"{name!r} does not have the {count} values of its shape {list(shape)}, all in {wanted}")
    if spec.datatype == BYTES:
        return list(contents.bytes_contents)
    values = np.empty(count, np.uint8)
    for at in range(0, count, _STEP_VALUES):  # numpy holds the interpreter while it reads a list
        step = np.array(contents.uint_contents[at : at + _STEP_VALUES], np.uint32)
        if step.max() > np.iinfo(np.uint8).max:
            raise MalformedRequest(f"{name!r} has the value {step.max()}, and UINT8 ends at 255")
        values[at : at + _STEP_VALUES] = step
    return values.reshape(shape)


def _read_timeout_us(parameters: Mapping[str, InferParameter]) -> int | None:
    """The protocol's own deadline, as Triton's clients send it."""
    if "timeout" not in parameters:
        return None
    timeout = parameters["timeout"]
    choice = timeout.WhichOneof("parameter_choice")
    value = getattr(timeout, choice) if choice in {"int64_param", "uint64_param"} else 0
    if not 1 <= value <= MAX_TIMEOUT_MS * 1000:
        raise MalformedRequest(f"the parameter timeout takes microseconds, from 1 to {MAX_TIMEOUT_MS * 1000}")
    return int(value)


def write_response(request_id: str, outputs: Sequence[str], results: Sequence[Mapping[str, Piece]]) -> bytes:
    """Write an inference response.

    Args:
        request_id: that the client has given.
        outputs: names, in their order.
        results: outputs of each picture, as binary data, all of one shape.
    """
    head = ModelInferResponse(model_name=MODEL, model_version=VERSION, id=request_id)
    parts = []
    for name in outputs:
        shape = [len(results), *results[0][name].shape]
        head.outputs.add(name=name, datatype=DATATYPES[name], shape=shape)
        data = [result[name].data for result in results]
        parts += [_write_varint(_RAW_OUTPUTS << 3 | _LENGTH), _write_varint(sum(map(len, data))), *data]
    return b"".join([head.SerializeToString(), *parts])


def _write_varint(value: int) -> bytes:
    text = bytearray()
    while value >= 0x80:  # noqa: PLR2004 - as above
        text.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*text, value])
