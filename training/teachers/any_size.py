"""ONNX files that were written for one picture of one size, made to take batches of squares of any size."""

from __future__ import annotations

from typing import Final

import onnx
from onnx import numpy_helper

_RANK: Final = 4  # N, C, H, W
_AS_IT_IS: Final = 0  # Reshape copies the input's dimension where its shape says 0
_THE_REST: Final = -1
_CHANNELS: Final = 3


def free_input(model: bytes) -> bytes:
    """Free the number of pictures and their sides, for a graph whose shapes follow from its input's.

    Convolutions, pooling and resizing by scales take any size. What an exporter fixes are the shapes written at
    inputs, outputs and values between them, and a first 1, the batch, in the shapes of Reshape. Whether the graph
    answers as before is for the caller to try: other shapes may be written into it.

    Args:
        model: an ONNX file.

    Returns:
        The file with every input of four dimensions free but for its channels.
    """
    free = onnx.load_from_string(model)
    graph = free.graph
    for one in graph.input:
        dimensions = one.type.tensor_type.shape.dim
        for place, dimension in enumerate(dimensions if len(dimensions) == _RANK else []):
            if place == 0 or dimension.dim_value != _CHANNELS:
                dimension.dim_param = f"{one.name}_{place}"
    for one in graph.output:
        for place, dimension in enumerate(one.type.tensor_type.shape.dim):
            dimension.dim_param = f"{one.name}_{place}"
    del graph.value_info[:]
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    constants = [
        (node.output[0], attribute.t)
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    for name, tensor in [*((one.name, one) for one in graph.initializer), *constants]:
        if name in shapes:
            _free_batch(tensor)
    return free.SerializeToString()


def _free_batch(shape: onnx.TensorProto) -> None:
    values = numpy_helper.to_array(shape).copy()
    if len(values) > 1 and values[0] == 1 and _THE_REST in values[1:]:
        values[0] = _AS_IT_IS
        shape.CopyFrom(numpy_helper.from_array(values, shape.name))
