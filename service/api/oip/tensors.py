"""Tensors of the Open Inference Protocol v2, as JSON and as bytes: little-endian, row-major, BYTES with lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from service.errors import MalformedRequest

BYTES = "BYTES"
_BITS = (8, 16, 32, 64)
_NUMBERS: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in _BITS},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in _BITS},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in _BITS[1:]},
}
_LENGTH_BYTES = 4

Values: TypeAlias = NDArray[Any] | list[bytes]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named tensor.

    Attributes:
        datatype: the protocol's name: UINT8, FP32, BYTES, ...
        shape: sizes, row-major.
        values: an array of that shape; of BYTES a flat list.
        as_text: BYTES that came as JSON's text.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Values
    as_text: bool = False


def read_tensor(
    name: str, datatype: str, shape: Sequence[object], *, data: object, size: object, rest: memoryview
) -> tuple[Tensor, memoryview]:
    """Read one tensor, from JSON or from the binary data of a request.

    Args:
        name: for error messages and the result.
        datatype: the protocol's name.
        shape: as JSON has it.
        data: as JSON has it; None if there is none.
        size: `binary_data_size`; None if it says nothing.
        rest: the binary data that no tensor before has taken.

    Returns:
        The tensor, and the binary data behind it.

    Raises:
        MalformedRequest: says what is wrong.
    """
    if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in shape):
        raise MalformedRequest(f"the shape of {name[:80]!r} is not a list of whole numbers from 0")
    sizes = tuple(cast("Sequence[int]", shape))
    if datatype != BYTES and datatype not in _NUMBERS:
        raise MalformedRequest(f"the datatype {datatype[:80]!r} of {name[:80]!r} is not known")
    if size is None:
        if data is None:
            raise MalformedRequest(f"{name[:80]!r} has neither data nor binary_data_size")
        values = _from_json(name, datatype, data)
    elif not isinstance(size, int) or not 0 <= size <= len(rest):
        raise MalformedRequest(f"binary_data_size of {name[:80]!r} is {size!r}; {len(rest)} bytes are left")
    else:
        values, rest = _from_bytes(name, datatype, rest[:size]), rest[size:]
    if len(values) != math.prod(sizes):
        raise MalformedRequest(f"{name[:80]!r} has {len(values)} values; its shape {list(sizes)} says otherwise")
    if isinstance(values, np.ndarray):
        values = values.reshape(sizes)
    return Tensor(name, datatype, sizes, values, as_text=datatype == BYTES and size is None), rest


def _from_bytes(name: str, datatype: str, data: memoryview) -> Values:
    if datatype != BYTES:
        itemsize = _NUMBERS[datatype].itemsize
        if len(data) % itemsize:
            raise MalformedRequest(f"{len(data)} bytes of {name[:80]!r} are not a multiple of {itemsize}")
        return np.frombuffer(data, _NUMBERS[datatype])
    elements = []
    while data:
        length = int.from_bytes(data[:_LENGTH_BYTES], "little")
        if len(data) < _LENGTH_BYTES + length:
            raise MalformedRequest(f"an element of {name[:80]!r} announces {length} bytes and has fewer")
        elements.append(bytes(data[_LENGTH_BYTES : _LENGTH_BYTES + length]))
        data = data[_LENGTH_BYTES + length :]
    return elements


def _from_json(name: str, datatype: str, data: object) -> Values:
    if datatype == BYTES:
        try:
            flat = _flatten(data)
        except RecursionError:
            raise MalformedRequest(f"the data of {name[:80]!r} is nested too deeply") from None
        if not all(isinstance(one, str) for one in flat):
            raise MalformedRequest(f"the elements of {name[:80]!r} are not all text")
        return [one.encode("utf-8", "surrogatepass") for one in flat]
    try:
        array = np.asarray(data)
        if array.dtype.kind not in "biuf":
            raise TypeError("not all are numbers")
        with np.errstate(invalid="ignore"):  # what does not fit is found below
            wanted = array.astype(_NUMBERS[datatype]).ravel()
        if _NUMBERS[datatype].kind in "iub" and not np.array_equal(wanted, array.ravel()):
            raise ValueError(f"not all are {datatype}")
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedRequest(f"the data of {name[:80]!r} cannot be read: {error}") from error
    return wanted


def _flatten(data: object) -> list[Any]:
    if not isinstance(data, list):
        return [data]
    return [value for one in data for value in _flatten(one)]


def to_bytes(tensor: Tensor) -> bytes:
    """Write a tensor as binary data."""
    if isinstance(tensor.values, np.ndarray):
        return np.ascontiguousarray(tensor.values, _NUMBERS[tensor.datatype]).tobytes()
    return b"".join(len(one).to_bytes(_LENGTH_BYTES, "little") + one for one in tensor.values)


def to_json(tensor: Tensor) -> list[Any]:
    """Write a tensor as a flat list of JSON values."""
    if isinstance(tensor.values, np.ndarray):
        flat: list[Any] = tensor.values.ravel().tolist()
        return flat
    return [one.decode("utf-8", "replace") for one in tensor.values]
