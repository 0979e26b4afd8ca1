"""The JSON of an inference request as a schema: read in one go that stops at the first wrong value and builds no other.

msgspec holds the interpreter while it reads, about 4 ns for each mark outside texts and 0.4 ns for each letter: what is
bounded here is how long that may be (docs/serving.md has the figures). What can be long, values of tensors, stays JSON.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from service.errors import MalformedRequest
from service.settings import MAX_TIMEOUT_MS

# Of a request's JSON, letters, digits, + / = aside, of which base64 consists: two for each number of a tensor.
MOST_MARKS = 2**21
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_STEP_BYTES = 2**20
_MOST_OUTPUTS_BYTES = 2**14
_MOST_SHAPE_BYTES = 256
_MOST_SIZES = 4

_Name: TypeAlias = Annotated[str, Meta(max_length=256)]
_Size: TypeAlias = Annotated[int, Meta(ge=0, lt=2**31)]
Value = TypeVar("Value")


class InputParameters(Struct):
    """Of an input; others are passed over."""

    binary_data_size: Annotated[int, Meta(ge=0, lt=2**53)] | None = None
    shared_memory_region: Raw | UnsetType = UNSET
    shared_memory_byte_size: Raw | UnsetType = UNSET


class OutputParameters(Struct):
    """Of an output; others are passed over."""

    binary_data: bool | None = None
    classification: Raw | UnsetType = UNSET
    class_count: Raw | UnsetType = UNSET
    shared_memory_region: Raw | UnsetType = UNSET
    shared_memory_byte_size: Raw | UnsetType = UNSET


class RequestParameters(Struct):
    """Of a request; others are passed over."""

    binary_data_output: bool = False
    timeout: Annotated[int, Meta(ge=1, le=MAX_TIMEOUT_MS * 1000)] | None = None


class Input(Struct):
    """A tensor that is sent; its values, if they are in the JSON, have been looked at and not read."""

    name: _Name
    datatype: _Name
    shape: Raw
    parameters: InputParameters = msgspec.field(default_factory=InputParameters)
    data: Raw | UnsetType = UNSET


class Output(Struct):
    """An output that is asked for."""

    name: _Name
    parameters: OutputParameters = msgspec.field(default_factory=OutputParameters)


class Document(Struct):
    """An inference request: one input, for a second one is an error before it is read."""

    inputs: tuple[Input]
    outputs: Raw | UnsetType = UNSET
    id: _Name | None = None
    parameters: RequestParameters = msgspec.field(default_factory=RequestParameters)


_documents = msgspec.json.Decoder(Document)
_outputs = msgspec.json.Decoder(list[Output])
_shapes = msgspec.json.Decoder(list[_Size])


def read_document(text: memoryview) -> Document:
    """Read the JSON of a request.

    Raises:
        MalformedRequest: it is none, or has more marks than a request needs; says where it is wrong.
    """
    if count_marks(text) > MOST_MARKS:
        raise MalformedRequest(
            f"the JSON has more than {MOST_MARKS} marks and blanks outside letters and digits; send the tensor as "
            "binary data behind the JSON (binary_data_size, Inference-Header-Content-Length)"
        )
    document = decode(_documents, text, "the request")
    if not document.inputs[0].name:
        raise MalformedRequest("the input has no name")
    return document


def count_marks(text: memoryview) -> int:
    """Count what takes time to look at, a megabyte at once; of a text that cannot have too many, its bytes."""
    if len(text) <= MOST_MARKS:
        return len(text)
    starts = range(0, len(text), _STEP_BYTES)
    return sum(len(bytes(text[start : start + _STEP_BYTES]).translate(None, _LETTERS)) for start in starts)


def read_outputs(asked: Raw | UnsetType) -> list[Output]:
    """Read the outputs that are asked for.

    Raises:
        MalformedRequest: they are too long, are none, or ask for what is not served.
    """
    if asked is UNSET:
        return []
    if len(memoryview(asked)) > _MOST_OUTPUTS_BYTES:
        raise MalformedRequest(f"outputs has more than {_MOST_OUTPUTS_BYTES} bytes; name each output once")
    outputs = decode(_outputs, asked, "outputs")
    for output in outputs:
        parameters = output.parameters
        if parameters.classification is not UNSET or parameters.class_count is not UNSET:
            raise MalformedRequest(
                f"the output {output.name[:80]!r} is asked for as classes (class_count), which is not served; ask for "
                "class_probs and sort them, or ask POST /classify?top_k=N"
            )
        refuse_shared_memory(output.name, parameters)
    return outputs


def refuse_shared_memory(name: str, parameters: InputParameters | OutputParameters) -> None:
    """Return if a tensor travels in the request or in its answer.

    Raises:
        MalformedRequest: it lies in shared memory.
    """
    if parameters.shared_memory_region is not UNSET or parameters.shared_memory_byte_size is not UNSET:
        raise MalformedRequest(
            f"{name[:80]!r} is said to lie in shared memory, which is not served; send it in the request, and take "
            "answers out of the response"
        )


def read_shape(name: str, shape: Raw) -> tuple[int, ...]:
    """Read a shape of one to four sizes.

    Raises:
        MalformedRequest: it is none.
    """
    wrong = f"the shape of {name[:80]!r} is not one to {_MOST_SIZES} whole numbers from 0"
    if len(memoryview(shape)) > _MOST_SHAPE_BYTES:
        raise MalformedRequest(wrong)
    try:
        sizes = _shapes.decode(shape)
    except msgspec.MsgspecError as error:
        raise MalformedRequest(wrong) from error
    if not 1 <= len(sizes) <= _MOST_SIZES:
        raise MalformedRequest(wrong)
    return tuple(sizes)


def decode(decoder: msgspec.json.Decoder[Value], text: Any, what: str) -> Value:  # noqa: ANN401 - a buffer, or Raw
    """Decode JSON.

    Raises:
        MalformedRequest: says what is wrong, and where, in 200 characters at most.
    """
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise MalformedRequest(f"{what} is not as the protocol has it: {str(error)[:200]}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedRequest(f"{what} is no JSON: {str(error)[:200]}") from error
    except RecursionError:
        raise MalformedRequest(f"{what} is nested too deeply") from None
