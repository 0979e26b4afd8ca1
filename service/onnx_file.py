"""What an ONNX file is made of, read without running it: operator sets, and tensors that lie elsewhere.

ONNX files are protocol buffers. Walking their fields takes a page and no library, and needs no trust in the file: ONNX
Runtime would follow a reference to external data before anybody could refuse it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from service.errors import ContractError

# Field numbers of onnx.proto (ONNX 1.23), of those messages that can hold a tensor.
_TENSOR = "tensor"
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}
_OPSET_IMPORT, _OPSET_DOMAIN, _OPSET_VERSION = 8, 1, 2
_EXTERNAL_DATA, _DATA_LOCATION, _TENSOR_NAME = 13, 14, 8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class OnnxFacts:
    """What matters before a file is run.

    Attributes:
        opsets: version by domain; "" is ONNX's own.
        external: names of tensors whose values are not in the file.
    """

    opsets: dict[str, int]
    external: tuple[str, ...]


def inspect_onnx(model: bytes) -> OnnxFacts:
    """Walk through an ONNX file.

    Raises:
        ContractError: it is no protocol buffer, or cut short.
    """
    opsets: dict[str, int] = {}
    external: list[str] = []
    for number, value in _fields(memoryview(model)):
        if number == _OPSET_IMPORT and isinstance(value, memoryview):
            entry = dict(_fields(value))
            domain, version = entry.get(_OPSET_DOMAIN, b""), entry.get(_OPSET_VERSION, 0)
            if isinstance(version, int) and not isinstance(domain, int):
                opsets[bytes(domain).decode("utf-8", "replace")] = version
    _find_external(memoryview(model), "model", external, depth=0)
    return OnnxFacts(opsets, tuple(external))


def _find_external(message: memoryview, kind: str, found: list[str], *, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ContractError("the file is no ONNX model: its graphs are nested too deeply")
    name, is_external = "", False
    for number, value in _fields(message):
        if kind == _TENSOR:
            if number == _TENSOR_NAME and isinstance(value, memoryview):
                name = bytes(value).decode("utf-8", "replace")
            is_external |= number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
        elif number in _CHILDREN[kind] and isinstance(value, memoryview):
            _find_external(value, _CHILDREN[kind][number], found, depth=depth + 1)
    if is_external:
        found.append(name)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field (protobuf.dev, Encoding); fixed-width values come as their bytes."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        wire_type = key & 7
        if wire_type == _VARINT:
            value, position = _read_varint(message, position)
            yield key >> 3, value
            continue
        if wire_type == _BYTES:
            length, position = _read_varint(message, position)
        elif wire_type in {_FIXED64, _FIXED32}:
            length = 8 if wire_type == _FIXED64 else 4
        else:
            raise ContractError("the file is no ONNX model: it is no protocol buffer")
        if position + length > len(message):
            raise ContractError("the file is no ONNX model, or it is cut short")
        yield key >> 3, message[position : position + length]
        position += length


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the high bit says that more follow
            return value, position
    raise ContractError("the file is no ONNX model, or it is cut short")
