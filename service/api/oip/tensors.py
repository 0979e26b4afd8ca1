"""Tensors of the Open Inference Protocol v2, as JSON and as bytes: little-endian, row-major, BYTES with lengths."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.api.oip.schema import Input, decode, read_shape, refuse_shared_memory
from service.errors import MalformedRequest

BYTES, UINT8 = "BYTES", "UINT8"
# Of a tensor in an answer: four megabytes of text and more.
MOST_JSON_VALUES = 2**20
_DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8"), UINT8: np.dtype("u1")}
_LENGTH_BYTES = 4
# What one call of the JSON reader and writer takes on: a millisecond or two.
_STEP_BYTES, _STEP_VALUES = 2**16, 2**14
_DIGITS_AND_BLANKS = b"0123456789 \t\r\n"
_BRACKETS_TO_BLANKS = bytes.maketrans(b"[]", b"  ")

Files: TypeAlias = list[bytes]
Squares: TypeAlias = NDArray[np.uint8]

_numbers = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=0, le=255)]])
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What an input takes.

    Attributes:
        datatype: BYTES or UINT8.
        sizes: behind the first one, which counts pictures; BYTES may have sizes of 1 around their number.
        most: pictures.
    """

    datatype: str
    sizes: tuple[int, ...]
    most: int

    def require(self, name: str, datatype: str, shape: tuple[int, ...]) -> None:
        """Return if this input takes a tensor.

        Raises:
            MalformedRequest: it does not; says what it takes.
        """
        if self.datatype == BYTES:
            fits, count = True, math.prod(shape)
        else:
            fits, count = shape[1:] == self.sizes, shape[0]
        if datatype != self.datatype or not fits or not 1 <= count <= self.most:
            sizes = ", ".join(["N", *map(str, self.sizes)])
            raise MalformedRequest(
                f"{name} comes with the datatype {datatype[:80]!r} and the shape {list(shape)}; it takes "
                f"{self.datatype} of the shape [{sizes}], N from 1 to {self.most}"
            )


def read_input(entry: Input, spec: InputSpec, rest: memoryview) -> Files | Squares:
    """Read a tensor, from JSON or from the binary data of a request, once its shape is known to be what is wanted.

    Args:
        entry: of the JSON.
        spec: of the input.
        rest: the binary data, all of which is this tensor's.

    Returns:
        Files, or an array of the shape that the JSON names.

    Raises:
        MalformedRequest: says what is wrong.
    """
    name = entry.name
    refuse_shared_memory(name, entry.parameters)
    shape = read_shape(name, entry.shape)
    spec.require(name, entry.datatype, shape)
    count, size = math.prod(shape), entry.parameters.binary_data_size
    data = None if entry.data is msgspec.UNSET else entry.data
    if size is not None and size != len(rest):
        raise MalformedRequest(f"binary_data_size of {name!r} is {size}; {len(rest)} bytes follow the JSON")
    if size is None and rest:
        raise MalformedRequest(f"{len(rest)} bytes follow the JSON; binary_data_size announces none of them")
    if (size is None) == (data is None):
        both = "neither data nor" if size is None else "both data and"
        raise MalformedRequest(f"{name!r} has {both} binary_data_size")
    if spec.datatype == BYTES:
        return split_elements(name, rest, count) if data is None else _read_texts(name, data, count)
    if data is not None:
        rest = memoryview(_read_numbers(name, data, shape))
    if len(rest) != count:
        raise MalformedRequest(f"{name!r} has {len(rest)} bytes; its shape {list(shape)} says otherwise")
    return np.frombuffer(rest, np.uint8).reshape(shape)


def split_elements(name: str, data: memoryview, count: int) -> Files:
    """Split binary BYTES, each behind its length, into as many as the shape says."""
    elements = []
    for _ in range(count):
        length = int.from_bytes(data[:_LENGTH_BYTES], "little")
        if len(data) < _LENGTH_BYTES + length:
            raise MalformedRequest(f"{name!r} has fewer bytes than its shape and the lengths of its elements say")
        elements.append(bytes(data[_LENGTH_BYTES : _LENGTH_BYTES + length]))
        data = data[_LENGTH_BYTES + length :]
    if data:
        raise MalformedRequest(f"{len(data)} bytes follow the last element that the shape of {name!r} counts")
    return elements


def _read_texts(name: str, data: msgspec.Raw, count: int) -> Files:
    """Read BYTES in JSON, which cannot carry bytes: each is base64; the list is as flat as the shape may be."""
    texts = decode(_decoder_of_texts(count), data, f"the data of {name!r}, as many base64 texts as its shape says,")
    return list(texts)


@functools.lru_cache(maxsize=32)
def _decoder_of_texts(count: int) -> msgspec.json.Decoder[tuple[bytes, ...]]:
    """A tuple of a known length ends at the first element too many, where a list is built before it is counted."""
    return msgspec.json.Decoder(tuple[(bytes,) * count])  # type: ignore[misc]  # a type made at run time


def _read_numbers(name: str, data: msgspec.Raw, shape: tuple[int, ...]) -> bytearray:
    """Read UINT8 in JSON, flat or nested as the shape, piece by piece."""
    text = bytes(data)
    frame = text.translate(None, _DIGITS_AND_BLANKS)
    if frame not in {_frame((math.prod(shape),)), _frame(shape)}:
        raise MalformedRequest(
            f"the data of {name!r} is not {math.prod(shape)} UINT8 numbers, flat or nested as its shape {list(shape)}"
        )
    values = bytearray()
    for piece in _cut(text.translate(_BRACKETS_TO_BLANKS)):
        values += bytes(decode(_numbers, b"[%b]" % piece, f"the data of {name!r}, UINT8,"))
    return values


def _frame(shape: Sequence[int]) -> bytes:
    """What nested JSON of this shape has beside its numbers and blanks."""
    frame = b""
    for size in reversed(shape):
        frame = b"[" + (frame + b",") * (size - 1) + frame + b"]"
    return frame


def _cut(text: bytes) -> Iterator[bytes]:
    """Cut a list at commas, so that no piece is long."""
    start = 0
    while len(text) - start > _STEP_BYTES:
        comma = text.rfind(b",", start, start + _STEP_BYTES)
        if comma < 0:
            raise MalformedRequest(f"a number of the data has more than {_STEP_BYTES} digits and blanks")
        yield text[start:comma]
        start = comma + 1
    yield text[start:]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one picture adds to a tensor of an answer.

    Attributes:
        shape: sizes of the array, that of the pictures not among them.
        data: its values, as binary data or as the text between the brackets of a JSON list.
    """

    shape: tuple[int, ...]
    data: bytes | memoryview


def encode(values: NDArray[Any], datatype: str, *, binary: bool) -> Piece:
    """Write an array; as JSON some thousand values at once, so that nobody waits long for the interpreter."""
    flat = np.ascontiguousarray(values, _DTYPES[datatype]).reshape(-1)
    if binary:
        return Piece(values.shape, flat.view(np.uint8).data)
    steps = range(0, flat.size, _STEP_VALUES)
    return Piece(values.shape, b",".join(_encoder.encode(flat[at : at + _STEP_VALUES].tolist())[1:-1] for at in steps))
