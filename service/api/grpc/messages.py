"""Inference requests and responses as bytes: what is long in them is cut out, and never comes to the protobuf library.

A message of a few megabytes can have millions of fields or numbers, each of which protobuf reads while it holds the
interpreter, and makes an object of up to a hundred bytes. So a message is walked through first: it has few fields, and
all but the values of tensors are short.
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
# Of a message, or of the values in one; files in `bytes_contents` are such values.
_MOST_FIELDS = 260
_MOST_SIZES, _MOST_SIZE = 4, 2**31
_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5
_INPUTS = ModelInferRequest.INPUTS_FIELD_NUMBER
_RAW_INPUTS = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_CONTENTS = ModelInferRequest.InferInputTensor.CONTENTS_FIELD_NUMBER
_FILES = InferTensorContents.BYTES_CONTENTS_FIELD_NUMBER
_NUMBERS = InferTensorContents.UINT_CONTENTS_FIELD_NUMBER
_RAW_OUTPUTS = ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_NOT_SERVED = {
    "shared_memory_region": "is said to lie in shared memory, which is not served; send it in the request",
    "classification": "is asked for as classes, which is not served; ask for class_probs and sort them",
}


@dataclass(frozen=True, slots=True)
class Walked:
    """A message, walked through.

    Attributes:
        words: the message without the values of tensors.
        raw: each of `raw_input_contents`.
        contents: each `contents` of an input.
    """

    words: bytes
    raw: list[memoryview]
    contents: list[memoryview]

    @property
    def contents_bytes(self) -> int:
        """Bytes of `contents`, each of which may be a number."""
        return sum(map(len, self.contents))


def walk(message: bytes) -> Walked:
    """Take a ModelInferRequest apart, without reading more than the numbers and lengths of its fields.

    Raises:
        MalformedRequest: it is none, or has more fields or words than an inference request needs.
    """
    view = memoryview(message)
    words, raw, contents = list[bytes | memoryview](), list[memoryview](), list[memoryview]()
    for field in _list_fields(view):
        if field.is_of(_RAW_INPUTS):
            raw.append(field.value)
        elif field.is_of(_INPUTS):
            inner = list(_list_fields(field.value))
            contents += [one.value for one in inner if one.is_of(_CONTENTS)]
            words.append(_write_field(_INPUTS, [one.whole for one in inner if not one.is_of(_CONTENTS)]))
        else:
            words.append(field.whole)
    number = sum(map(len, words))
    if number > MOST_WORDS_BYTES:
        raise MalformedRequest(
            f"the message has {number} bytes beside the values of tensors, and may have {MOST_WORDS_BYTES}"
        )
    return Walked(b"".join(words), raw, contents)


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a message.

    Attributes:
        number, kind: of it; the kind is protobuf's wire type.
        value: its bytes.
        whole: the same with what stands before them.
    """

    number: int
    kind: int
    value: memoryview
    whole: memoryview

    def is_of(self, number: int) -> bool:
        """Whether it is that field, and has a length."""
        return self.number == number and self.kind == _LENGTH


def _list_fields(view: memoryview) -> Iterator[_Field]:
    at, end = 0, len(view)
    for _ in range(_MOST_FIELDS):
        if at == end:
            return
        begin = at
        key, at = _read_varint(view, at)
        number, kind = key >> 3, key & 7
        start = at
        if kind == _VARINT:
            _, at = _read_varint(view, at)
        elif kind == _LENGTH:
            length, start = _read_varint(view, at)
            at = start + length
        elif kind in {_FIXED_32, _FIXED_64}:
            at += 4 if kind == _FIXED_32 else 8
        else:
            raise MalformedRequest(f"the message is no ModelInferRequest: it has a field of the wire type {kind}")
        if at > end:
            raise MalformedRequest("the message is no ModelInferRequest: it ends within a field")
        yield _Field(number, kind, view[start:at], view[begin:at])
    raise MalformedRequest(
        f"the message has more than {_MOST_FIELDS} fields, or elements of a tensor; send raw_input_contents"
    )


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    """Read a number; returns it, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
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
        message = ModelInferRequest.FromString(walked.words)
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
    values = _read_values(entry, walked, specs[entry.name])
    outputs = dict.fromkeys((output.name for output in message.outputs), True)
    return InferRequest(entry.name, values, outputs, True, message.id, _read_timeout_us(message.parameters))


def _refuse_not_served(name: str, parameters: Mapping[str, InferParameter]) -> None:
    for parameter, why in _NOT_SERVED.items():
        if parameter in parameters:
            raise MalformedRequest(f"{name[:80]!r} {why}")


def _read_values(entry: ModelInferRequest.InferInputTensor, walked: Walked, spec: InputSpec) -> Files | Squares:
    """Read the tensor of a request, once its shape is known to be what is wanted."""
    name, shape = entry.name, tuple(entry.shape)
    if not 1 <= len(shape) <= _MOST_SIZES or not all(0 <= size < _MOST_SIZE for size in shape):
        raise MalformedRequest(f"the shape of {name!r} is not one to {_MOST_SIZES} whole numbers from 0")
    spec.require(name, entry.datatype, shape)
    if walked.contents and walked.raw:
        raise MalformedRequest(f"{name!r} has both contents and raw_input_contents")
    if walked.contents:
        fields = [field for contents in walked.contents for field in _list_fields(contents)]
        return _read_files(name, fields, shape) if spec.datatype == BYTES else _read_numbers(name, fields, shape)
    if len(walked.raw) != 1:
        raise MalformedRequest(f"raw_input_contents has {len(walked.raw)} elements, and there is one input")
    (raw,) = walked.raw
    if spec.datatype == BYTES:
        return split_elements(name, raw, math.prod(shape))
    if len(raw) != math.prod(shape):
        raise MalformedRequest(f"{name!r} has {len(raw)} bytes; its shape {list(shape)} says otherwise")
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _read_files(name: str, fields: Sequence[_Field], shape: tuple[int, ...]) -> Files:
    if len(fields) != math.prod(shape) or not all(field.is_of(_FILES) for field in fields):
        raise MalformedRequest(
            f"{name!r} has not the elements that its shape {list(shape)} says, all in bytes_contents"
        )
    return [bytes(field.value) for field in fields]


def _read_numbers(name: str, fields: Sequence[_Field], shape: tuple[int, ...]) -> Squares:
    if not all(field.is_of(_NUMBERS) for field in fields):
        raise MalformedRequest(f"{name!r} has values that are not packed in uint_contents; send raw_input_contents")
    values = np.concatenate([np.empty(0, np.uint8), *(_unpack_numbers(name, field.value) for field in fields)])
    if len(values) != math.prod(shape):
        raise MalformedRequest(f"{name!r} has {len(values)} values; its shape {list(shape)} says otherwise")
    return values.reshape(shape)


def _unpack_numbers(name: str, packed: memoryview) -> Squares:
    """Read numbers up to 255 as protobuf packs them: from 128 on each has a 1 behind it."""
    data = np.frombuffer(packed, np.uint8)
    is_second = np.zeros(len(data) + 1, np.bool_)
    is_second[1:] = data >= 0x80  # noqa: PLR2004 - the bit that says that more follows
    if is_second[-1] or (data[is_second[:-1]] != 1).any():
        raise MalformedRequest(f"{name!r} has a value beyond 255, or one that is no number")
    return data[~is_second[:-1]]


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
    for name in outputs:
        head.outputs.add(name=name, datatype=DATATYPES[name], shape=[len(results), *results[0][name].shape])
    raw = [_write_field(_RAW_OUTPUTS, [result[name].data for result in results]) for name in outputs]
    return b"".join([head.SerializeToString(), *raw])


def _write_field(number: int, pieces: Sequence[bytes | memoryview]) -> bytes:
    """Write a field that has a length, of the bytes of these pieces."""
    length = sum(map(len, pieces))
    return b"".join([_write_varint(number << 3 | _LENGTH), _write_varint(length), *pieces])


def _write_varint(value: int) -> bytes:
    text = bytearray()
    while value >= 0x80:  # noqa: PLR2004 - as above
        text.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*text, value])
