"""Open Inference Protocol v2 on the wire: bytes to tensors, tensors to bytes; JSON and binary tensors.

Written after the protocol's text (kserve/open-inference-protocol, "HTTP/REST") and Triton's binary tensor data
extension: a JSON header, directly followed by the tensors that it announces with `binary_data_size`, in its order.
Knows nothing of pictures or models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from service.api.fields.numbers import read_decimal
from service.api.oip.schema import read_document, read_outputs
from service.api.oip.tensors import Files, InputSpec, Piece, Squares, read_input
from service.errors import MalformedRequest

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a client asks.

    Attributes:
        input: the name of what was sent.
        values: of it.
        outputs: the names wanted, and whether each shall come as binary data; empty: all.
        binary: whether outputs that say nothing come as binary data.
        id: to be repeated in the answer.
        timeout_us: the protocol's own deadline, in microseconds; None if there is none.
    """

    input: str
    values: Files | Squares
    outputs: Mapping[str, bool] = field(default_factory=dict)
    binary: bool = False
    id: str | None = None
    timeout_us: int | None = None


def read_json_length(header: str | None, body_bytes: int) -> int:
    """How many bytes of a body are JSON.

    Args:
        header: the HTTP header `Inference-Header-Content-Length`; None if there is none: then all of it is.
        body_bytes: of the body, unpacked.

    Raises:
        MalformedRequest: the header is no number, or more than the body has.
    """
    if header is None:
        return body_bytes
    length = read_decimal(header, body_bytes)
    if length is None:
        raise MalformedRequest(
            f"{HEADER_LENGTH} is {header[:80]!r}; it takes the JSON's number of bytes, of {body_bytes} at most"
        )
    return length


def read_request(
    body: bytes, header_length: str | None, specs: Mapping[str, InputSpec], *, raw_input: str
) -> InferRequest:
    """Read an inference request.

    Args:
        body: unpacked.
        header_length: as `read_json_length` takes it; where it says 0, the whole body is the one element of the input
            `raw_input`, and all outputs come as binary data.
        specs: what each input takes.
        raw_input: the input of a request without JSON.

    Raises:
        MalformedRequest: says what is wrong.
    """
    length = read_json_length(header_length, len(body))
    if header_length is not None and length == 0:
        return InferRequest(raw_input, [body], binary=True)
    view = memoryview(body)
    document = read_document(view[:length])
    (entry,) = document.inputs
    if entry.name not in specs:
        known = " or ".join(map(repr, specs))
        raise MalformedRequest(f"there is no input {entry.name[:80]!r}; send {known}")
    outputs, binary = read_outputs(document.outputs), document.parameters.binary_data_output
    return InferRequest(
        entry.name,
        read_input(entry, specs[entry.name], view[length:]),
        {one.name: binary if one.parameters.binary_data is None else one.parameters.binary_data for one in outputs},
        binary,
        document.id,
        document.parameters.timeout,
    )


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A tensor of an answer.

    Attributes:
        name, datatype: in the protocol's words.
        pieces: of each picture, all of one shape.
        binary: whether it comes as binary data.
    """

    name: str
    datatype: str
    pieces: Sequence[Piece]
    binary: bool


def write_answer(head: Mapping[str, Any], tensors: Sequence[OutputTensor]) -> tuple[bytes, int | None]:
    """Write an inference response.

    Args:
        head: what the JSON has beside `outputs`.
        tensors: the outputs.

    Returns:
        The body, and the JSON's number of bytes if anything follows it.
    """
    entries, blobs = [], []
    for tensor in tensors:
        shape = [len(tensor.pieces), *tensor.pieces[0].shape]
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": shape}
        data = [piece.data for piece in tensor.pieces]
        if tensor.binary:
            blobs += data
            entry["parameters"] = {"binary_data_size": sum(map(len, data))}
        else:
            entry["data"] = msgspec.Raw(b"[%b]" % b",".join(data))
        entries.append(entry)
    text = msgspec.json.encode({**head, "outputs": entries})
    return b"".join([text, *blobs]), len(text) if any(tensor.binary for tensor in tensors) else None
