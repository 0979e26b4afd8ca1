"""The same network in the operators that ONNX Runtime computes in its convolutions' blocked layout, and fewer of them.

What it has no blocked form of costs a reordering before and after, often more than the operator itself. Every function
changes a model in place, and its answers by rounding at most.
"""

from __future__ import annotations

import copy
from typing import Any, TypeAlias, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

Array: TypeAlias = NDArray[Any]
Module = TypeVar("Module", bound=nn.Module)

_IMAGE_AXES = 4  # N, C, h, w
_RESIZE_INPUTS = 4  # what to resize, two that are empty, the sides


class _Mean(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3), keepdim=True)


def pool_by_means(module: Module) -> Module:
    """Copy a network with means in the place of `AdaptiveAvgPool2d(1)`.

    Of a pooling torch's exporter keeps the memory layout too: two operators more for every squeeze-and-excitation.
    """
    copied = copy.deepcopy(module)
    for parent in list(copied.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
                setattr(parent, name, _Mean())
    return copied


def pool_globally(model: onnx.ModelProto) -> None:
    """Write means over height and width as GlobalAveragePool, in place.

    ONNX Runtime keeps that operator in the blocked layout of the convolutions around it. For a ReduceMean, which is
    what squeeze-and-excitation exports to, it reorders the feature map first.
    """
    graph = model.graph
    constants = _read_constants(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        axes = constants[node.input[1]].tolist() if node.op_type == "ReduceMean" and len(node.input) > 1 else []
        if sorted(axes) not in ([2, 3], [-2, -1]):
            nodes.append(node)
            continue
        keeps = next((attribute.i for attribute in node.attribute if attribute.name == "keepdims"), 1)
        pooled = node.output[0] if keeps else f"{node.output[0]}_pooled"
        nodes.append(helper.make_node("GlobalAveragePool", [node.input[0]], [pooled]))
        if not keeps:
            nodes.append(helper.make_node("Squeeze", [pooled, node.input[1]], [node.output[0]]))
    _replace(graph, nodes)


def upsample_by_factors(model: onnx.ModelProto) -> None:
    """Give every Resize whose sides grow by whole factors these factors, in place of the sides.

    Only so does ONNX Runtime stay in the blocked layout. torch's exporter writes the sides, joined at run time with the
    batch size of the input.
    """
    graph = model.graph
    shapes = _infer_shapes(model)
    for node in graph.node:
        before, after = shapes.get(node.input[0], []), shapes.get(node.output[0], [])
        by_sides = node.op_type == "Resize" and len(node.input) == _RESIZE_INPUTS
        if not by_sides or not all(before[2:]) or any(n % o for o, n in zip(before[2:], after[2:], strict=True)):
            continue
        factors = [1, 1, *(new // old for old, new in zip(before[2:], after[2:], strict=True))]
        name = f"{node.output[0]}_factors"
        graph.initializer.append(numpy_helper.from_array(np.array(factors, dtype=np.float32), name))
        del node.input[1:]
        node.input.extend(["", name])
    _replace(graph, list(graph.node))


def fold_input_scale(model: onnx.ModelProto) -> None:
    """Where channels are divided by constants before a convolution, divide its weights instead."""
    graph = model.graph
    constants = _read_constants(graph)
    readers: dict[str, list[onnx.NodeProto | None]] = {output.name: [None] for output in graph.output}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        scale = constants.get(node.input[1]) if node.op_type == "Div" else None
        first, *others = readers.get(node.output[0], [None])
        if scale is None or first is None or others or not _is_per_channel(scale) or _groups(first) != 1:
            nodes.append(node)
            continue
        weights = f"{first.input[1]}_scaled"
        divided = np.divide(constants[first.input[1]], scale)
        graph.initializer.append(numpy_helper.from_array(divided, weights))
        first.input[0], first.input[1] = node.input[0], weights
    _replace(graph, nodes)


def _is_per_channel(values: Array) -> bool:
    return values.ndim == _IMAGE_AXES and values.size == values.shape[1]


def _groups(node: onnx.NodeProto) -> int:
    """Groups of a convolution; 0 of anything else."""
    if node.op_type != "Conv":
        return 0
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _read_constants(graph: onnx.GraphProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _infer_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Sides of all values that have some; 0 where a side is not fixed."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Put nodes in the place of all; those that nothing reads, and constants, are left out."""
    kept: list[onnx.NodeProto] = []
    wanted = {output.name for output in graph.output}
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    constants = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)
