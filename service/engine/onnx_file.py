"""What an ONNX file is made of, read without running it: whose operators it calls, and tensors that lie elsewhere.

ONNX files are protocol buffers. Walking their fields takes a page and no library, and needs no trust in the file: what
is found here is told in a sentence before ONNX Runtime sees any of it. Whatever two readers could understand
differently is refused, so that nothing hides between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from service.errors import ContractError

# Field numbers of onnx.proto (ONNX 1.23), of those messages that can hold a tensor or a domain.
_TENSOR, _OPSET = "tensor", "opset"
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: _OPSET, 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "function": {7: "node", 9: _OPSET, 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
    _OPSET: {},
    _TENSOR: {},
}
_DOMAIN = {_OPSET: 1, "node": 7, "function": 10}
_EXTERNAL_DATA, _DATA_LOCATION, _TENSOR_NAME = 13, 14, 8
# Groups (3 and 4), which no ONNX file has, are refused as the wire types are that do not exist.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# A tag is 32 bits: three of the wire type, 29 of the field's number. Beyond them some readers cut, and others do not.
_MIN_TAG, _MAX_TAG, _MAX_TAG_BYTES = 1 << 3, 2**32 - 1, 5
_MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class OnnxFacts:
    """What matters before a file is run.

    Attributes:
        domains: of all operators that the file imports, calls or defines, in whichever graph; "" is ONNX's own.
        external: names of tensors whose values are not in the file.
    """

    domains: frozenset[str]
    external: tuple[str, ...]


def inspect_onnx(model: bytes) -> OnnxFacts:
    """Walk through an ONNX file.

    Raises:
        ContractError: it is no protocol buffer, cut short, or has a tag that not all readers understand alike.
    """
    domains: set[str] = set()
    external: list[str] = []
    _walk(memoryview(model), "model", domains, external, depth=0)
    return OnnxFacts(frozenset(domains), tuple(external))


def _walk(message: memoryview, kind: str, domains: set[str], external: list[str], *, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ContractError("the file is no ONNX model: its graphs are nested too deeply")
    name, is_external = "", False
    if kind in _DOMAIN:
        domains.add("")  # where none is named
    for number, value in _fields(message):
        if kind == _TENSOR:
            if number == _TENSOR_NAME and isinstance(value, memoryview):
                name = _read_text(value)
            is_external |= number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
        elif number == _DOMAIN.get(kind) and isinstance(value, memoryview):
            domains.add(_read_text(value))
        elif number in _CHILDREN[kind] and isinstance(value, memoryview):
            _walk(value, _CHILDREN[kind][number], domains, external, depth=depth + 1)
    if is_external:
        external.append(name)


def _read_text(value: memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field (protobuf.dev, Encoding); fixed-width values come as their bytes."""
    position = 0
    while position < len(message):
        start = position
        key, position = _read_varint(message, position)
        if not _MIN_TAG <= key <= _MAX_TAG or position - start > _MAX_TAG_BYTES:
            raise ContractError("the file is no ONNX model: the number of a field is 0, or has more than 29 bits")
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
