"""Open Inference Protocol v2 on the wire: bytes to tensors, tensors to bytes; JSON, binary tensors, compression.

Written after the protocol's text (kserve/open-inference-protocol, "HTTP/REST") and Triton's binary tensor data
extension: a JSON header, directly followed by the tensors that it announces with `binary_data_size`, in its order.
Knows nothing of pictures or models.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.api.oip.tensors import BYTES, Tensor, read_tensor, to_bytes, to_json
from service.errors import BodyTooLarge, MalformedRequest

HEADER_LENGTH = "Inference-Header-Content-Length"
_COMPRESSED = {"gzip": 31, "deflate": 15}  # zlib's wbits
_COMPRESSION_LEVEL = 1


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a client asks.

    Attributes:
        inputs: in the order they came.
        outputs: the names wanted, and whether each shall come as binary data; empty: all.
        binary: whether outputs that say nothing come as binary data.
        id: to be repeated in the answer.
        parameters: of the request.
    """

    inputs: tuple[Tensor, ...]
    outputs: Mapping[str, bool] = field(default_factory=dict)
    binary: bool = False
    id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo a Content-Encoding.

    Raises:
        MalformedRequest: an encoding that is not known, or damaged data.
        BodyTooLarge: more than `limit` bytes come out.
    """
    if encoding in {"", "identity"}:
        return body
    if encoding not in _COMPRESSED:
        raise MalformedRequest(f"the content encoding {encoding[:80]!r} is not known; send gzip, deflate or none")
    unpacker = zlib.decompressobj(_COMPRESSED[encoding])
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise MalformedRequest(f"the body is no {encoding} data: {error}") from error
    if len(plain) > limit:
        raise BodyTooLarge(f"the body has more than {limit} bytes when unpacked, the limit")
    if not unpacker.eof:
        raise MalformedRequest(f"the {encoding} data is cut short")
    return plain


def compress(content: bytes, accepted: str) -> tuple[bytes, str]:
    """Pack an answer as the client accepts it; returns the bytes and the Content-Encoding, empty if none."""
    names = {word.partition(";")[0].strip().lower() for word in accepted.split(",")}
    if "gzip" in names:
        return gzip.compress(content, _COMPRESSION_LEVEL), "gzip"
    if "deflate" in names:
        return zlib.compress(content, _COMPRESSION_LEVEL), "deflate"
    return content, ""


def read_request(body: bytes, header_length: str | None, *, raw_input: str) -> InferRequest:
    """Read an inference request.

    Args:
        body: unpacked.
        header_length: of the HTTP header `Inference-Header-Content-Length`; None: the whole body is JSON; 0: the whole
            body is the one element of the input `raw_input`, and all outputs come as binary data.
        raw_input: the input of a request without JSON.

    Raises:
        MalformedRequest: says what is wrong.
    """
    if header_length is not None and not header_length.isdecimal():
        raise MalformedRequest(f"{HEADER_LENGTH} is {header_length[:80]!r}; it takes the JSON's number of bytes")
    length = len(body) if header_length is None else int(header_length)
    if length > len(body):
        raise MalformedRequest(f"{HEADER_LENGTH} is {length}, the body has {len(body)} bytes")
    if header_length is not None and length == 0:
        return InferRequest((Tensor(raw_input, BYTES, (1,), [body]),), binary=True)
    document = _read_json(body[:length])
    rest = memoryview(body)[length:]
    inputs = []
    for entry in _list(document, "inputs"):
        tensor, rest = read_tensor(
            _text(entry, "name"),
            _text(entry, "datatype"),
            _list(entry, "shape"),
            data=entry.get("data"),
            size=_dict(entry, "parameters").get("binary_data_size"),
            rest=rest,
        )
        inputs.append(tensor)
    if rest:
        raise MalformedRequest(f"{len(rest)} bytes follow the last input; binary_data_size announces none of them")
    if not inputs:
        raise MalformedRequest("the request has no inputs")
    parameters = _dict(document, "parameters")
    binary = bool(parameters.get("binary_data_output", False))
    outputs = {
        _text(entry, "name"): bool(_dict(entry, "parameters").get("binary_data", binary))
        for entry in _list(document, "outputs")
    }
    identity = document.get("id")
    return InferRequest(tuple(inputs), outputs, binary, None if identity is None else str(identity), parameters)


def write_answer(
    head: Mapping[str, Any], tensors: Sequence[Tensor], binary: Sequence[bool]
) -> tuple[bytes, int | None]:
    """Write an inference response.

    Args:
        head: what the JSON has beside `outputs`.
        tensors: the outputs.
        binary: of each, whether it comes as binary data.

    Returns:
        The body, and the JSON's number of bytes if anything follows it.
    """
    entries, blobs = [], []
    for tensor, as_binary in zip(tensors, binary, strict=True):
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if as_binary:
            blobs.append(to_bytes(tensor))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = to_json(tensor)
        entries.append(entry)
    text = json.dumps({**head, "outputs": entries}, separators=(",", ":")).encode()
    return b"".join([text, *blobs]), len(text) if any(binary) else None


def _read_json(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"the request is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise MalformedRequest("the request is JSON, and no object")
    return document


def _text(entry: Any, key: str) -> str:  # noqa: ANN401 - JSON
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str):
        raise MalformedRequest(f"an input or output has no {key!r}, or one that is no text")
    return value


def _list(entry: Any, key: str) -> list[Any]:  # noqa: ANN401 - JSON
    value = entry.get(key, [])
    if not isinstance(value, list):
        raise MalformedRequest(f"{key!r} is no list")
    return value


def _dict(entry: Any, key: str) -> dict[str, Any]:  # noqa: ANN401 - JSON
    value = entry.get(key, {})
    if not isinstance(value, dict):
        raise MalformedRequest(f"{key!r} is no object")
    return value
