"""Tiny ONNX teachers whose answers can be worked out from the picture: mean colours, and boxes that are fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.pictures.imaging import UInt8Array

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
CLASSES = ("red", "green", "blue")
# Of a picture, in shares of it: x1, y1, x2, y2; and what describes a detector that has them.
SHARES = [(0.1, 0.2, 0.5, 0.7), (0.5, 0.1, 0.9, 0.9)]
DETECTOR = 'kind = "boxes"\nunit = "share"\nboxes = "boxes"'
# The pictures of the fixture `pictures`.
COLOURS = {"a": (204, 51, 0), "b/c": (0, 204, 51), "d": (51, 0, 204)}


def plain(colour: tuple[int, int, int], height: int = 20, width: int = 40) -> UInt8Array:
    """A picture of one colour."""
    return np.full((height, width, 3), colour, dtype=np.uint8)


def write_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, list[Any]]],
    outputs: Mapping[str, tuple[int, int]],
    constants: Mapping[str, NDArray[Any]] | None = None,
) -> Path:
    """Write an ONNX file; inputs are name = (type, shape), outputs name = (type, number of dimensions)."""
    values = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "teacher",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, [None] * rank) for name, (kind, rank) in outputs.items()],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def write_toml(
    path: Path, *, output: str, given: str = "", names: Sequence[str] | str = CLASSES, more: str = ""
) -> Path:
    """Write the description of a teacher beside its ONNX file.

    Args:
        path: of the ONNX file.
        output: lines of [output].
        given: lines of [input] in place of those for a 32 px square that is stretched, 0..1.
        names: of [classes].
        more: further lines of [classes].
    """
    listed = f'"{names}"' if isinstance(names, str) else list(names)
    shape = given or 'size = 32\nfit = "stretch"\nscale = 1'
    text = f"[input]\n{shape}\n\n[output]\n{output}\n\n[classes]\nnames = {listed}\n{more}\n"
    place = path.with_suffix(".toml")
    place.write_text(text)
    return place


def write_classifier(path: Path, *, size: Sequence[int] = (32, 32)) -> Path:
    """Write a teacher of three classes: the mean of each channel, which are probabilities at scale 1."""
    nodes = [helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0)]
    shape: list[Any] = ["n", 3, *size]
    return write_graph(path, nodes, {"images": (FLOAT, shape)}, {"means": (FLOAT, 2)}, {"axes": np.array([2, 3])})


def write_cells(path: Path, *, size: Sequence[int] = (32, 32), stride: int = 4) -> Path:
    """Write a teacher of masks: the mean of each channel in each cell, as a value for each of three classes."""
    pool = helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[stride] * 2, strides=[stride] * 2)
    return write_graph(path, [pool], {"images": (FLOAT, ["n", 3, *size])}, {"cells": (FLOAT, 4)})


def write_cell_ids(path: Path, *, size: Sequence[int] = (32, 32), stride: int = 4) -> Path:
    """Write a teacher of masks: the brightest channel of each cell."""
    nodes = [
        helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[stride] * 2, strides=[stride] * 2),
        helper.make_node("ArgMax", ["cells"], ["ids"], axis=1, keepdims=0),
    ]
    return write_graph(path, nodes, {"images": (FLOAT, ["n", 3, *size])}, {"ids": (INT64, 3)})


def write_boxes(path: Path, boxes: Sequence[Sequence[float]], *, is_told: bool = False) -> Path:
    """Write a detector of fixed boxes: of box k the score of class c is the mean of channel c, divided by k + 1.

    With `is_told` the boxes are shares of the size that the input `orig_target_sizes` [N, 2] says as width, height;
    and there are `labels` and one score a box: box k is of class k % 3.
    """
    count = len(boxes)
    constants: dict[str, NDArray[Any]] = {
        "axes": np.array([2, 3]),
        "fixed": np.array([boxes], dtype=np.float32).reshape(1, count, 4),
        "shares": (1 / (1 + np.arange(count, dtype=np.float32))).reshape(1, count, 1),
    }
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
        helper.make_node("Unsqueeze", ["means", "one"], ["row"]),
        helper.make_node("Mul", ["row", "shares"], ["each" if is_told else "scores"]),
    ]
    constants["one"] = np.array([1])
    inputs: dict[str, tuple[int, list[Any]]] = {"images": (FLOAT, ["n", 3, 32, 32])}
    outputs = {"boxes": (FLOAT, 3), "scores": (FLOAT, 2 if is_told else 3)}
    if not is_told:
        nodes.append(helper.make_node("Identity", ["fixed"], ["boxes"]))
        return write_graph(path, nodes, inputs, outputs, constants)
    constants["chosen"] = np.arange(count).reshape(1, count, 1) % 3
    constants["last"] = np.array([2])
    nodes += [
        helper.make_node("Cast", ["orig_target_sizes"], ["size"], to=FLOAT),
        helper.make_node("Concat", ["size", "size"], ["sides"], axis=1),
        helper.make_node("Mul", ["fixed", "sides"], ["boxes"]),
        helper.make_node("GatherElements", ["each", "chosen"], ["picked"], axis=2),
        helper.make_node("Squeeze", ["picked", "last"], ["scores"]),
        helper.make_node("Squeeze", ["chosen", "last"], ["labels"]),
    ]
    inputs["orig_target_sizes"] = (INT64, ["n", 2])
    return write_graph(path, nodes, inputs, {**outputs, "labels": (INT64, 2)}, constants)


def write_grid(path: Path, cells: Mapping[int, Sequence[float]], *, count: int = 21, classes: int = 3) -> Path:
    """Write a detector with a grid of `count` cells: those that are given by their row, the rest see nothing."""
    grid = np.zeros((1, count, 5 + classes), dtype=np.float32)
    for row, values in cells.items():
        grid[0, row] = values
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "zero"], ["sees"]),
        helper.make_node("Where", ["sees", "grid", "nothing"], ["output"]),
    ]
    constants = {"grid": grid, "nothing": np.zeros_like(grid), "zero": np.array(0, dtype=np.float32)}
    return write_graph(path, nodes, {"images": (FLOAT, ["n", 3, 32, 32])}, {"output": (FLOAT, 3)}, constants)


def write_grids(path: Path, *, size: int = 64, classes: int = 3, strides: Sequence[int] = (8, 16, 32)) -> Path:
    """Write a detector with a grid a stride, as its makers export one: for one picture of one size.

    Every cell has a box in its middle, of twice its stride; its objectness is the cell's mean red, and the score of
    class c is its mean green, divided by c + 1.
    """
    weights = np.zeros((5 + classes, 3, 1, 1), dtype=np.float32)
    weights[4, 0] = 1
    weights[5:, 1, 0, 0] = 1 / (1 + np.arange(classes))
    bias = np.array([0.5, 0.5, np.log(2), np.log(2), *([0] * (1 + classes))], dtype=np.float32)
    nodes = []
    for stride in strides:
        nodes += [
            helper.make_node(
                "AveragePool", ["images"], [f"cells{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2
            ),
            helper.make_node("Conv", [f"cells{stride}", "weights", "bias"], [f"said{stride}"]),
            helper.make_node("Reshape", [f"said{stride}", "shape"], [f"row{stride}"]),
        ]
    nodes += [
        helper.make_node("Concat", [f"row{stride}" for stride in strides], ["rows"], axis=2),
        helper.make_node("Transpose", ["rows"], ["output"], perm=[0, 2, 1]),
    ]
    constants = {"weights": weights, "bias": bias, "shape": np.array([1, 5 + classes, -1])}
    return write_graph(path, nodes, {"images": (FLOAT, [1, 3, size, size])}, {"output": (FLOAT, 3)}, constants)
