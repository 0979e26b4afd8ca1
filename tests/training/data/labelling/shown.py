"""The teachers that docs/how-to/labelling.md shows, as tiny ONNX files with the same inputs and outputs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from tests.checkout import ROOT
from tests.training.data.labelling.make_teachers import FLOAT, INT64, write_graph

PAGE = (ROOT / "docs" / "how-to" / "labelling.md").read_text(encoding="utf-8")
DESCRIBED = {found[1]: found[0] for found in re.finditer(r"(?<=```toml\n)# (\w+\.toml)\n.*?(?=```)", PAGE, re.DOTALL)}


def write_shown(folder: Path) -> list[Path]:
    """Write every teacher of the page; gives the ONNX files."""
    folder.mkdir(parents=True)
    paths = []
    for name, text in DESCRIBED.items():
        (folder / name).write_text(text)
        path = (folder / name).with_suffix(".onnx")
        {"boxes": _write_lists, "yolox": _write_grids, "mask-logits": _write_cells}[
            tomllib.loads(text)["output"]["kind"]
        ](path)
        paths.append(path)
    return paths


def _write_lists(path: Path) -> None:
    """Write a detector of COCO's first two classes at fixed shares of the size that it is told."""
    nodes = [
        helper.make_node("Cast", ["orig_target_sizes"], ["size"], to=FLOAT),
        helper.make_node("Concat", ["size", "size"], ["sides"], axis=1),
        helper.make_node("Mul", ["fixed", "sides"], ["boxes"]),
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["shares", "mean"], ["scores"]),
        helper.make_node("Identity", ["first"], ["labels"]),
    ]
    constants: dict[str, Any] = {
        "fixed": np.array([[[0.1, 0.1, 0.6, 0.7], [0.5, 0.4, 0.9, 0.9]]], dtype=np.float32),
        "shares": np.array([[1.0, 0.8]], dtype=np.float32),
        "first": np.array([[0, 1]]),
    }
    inputs: dict[str, tuple[int, list[Any]]] = {
        "images": (FLOAT, ["n", 3, 416, 416]),
        "orig_target_sizes": (INT64, ["n", 2]),
    }
    write_graph(path, nodes, inputs, {"labels": (INT64, 2), "boxes": (FLOAT, 3), "scores": (FLOAT, 2)}, constants)


def _write_grids(path: Path) -> None:
    """Write a detector that sees a person in the middle of the square."""
    grid = np.zeros((1, 3549, 85), dtype=np.float32)
    grid[0, 3549 - 85, :6] = (0.5, 0.5, 2, 2, 0.9, 0.9)
    nodes = [
        helper.make_node("ReduceMin", ["images"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "nil"], ["nothing"]),
        helper.make_node("Add", ["grid", "nothing"], ["output"]),
    ]
    constants = {"grid": grid, "nil": np.array(0, dtype=np.float32)}
    write_graph(path, nodes, {"images": (FLOAT, [1, 3, 416, 416])}, {"output": (FLOAT, 3)}, constants)


def _write_cells(path: Path) -> None:
    """Write a network of masks that sees road where it is bright."""
    nodes = [
        helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Concat", ["cells", "first"], ["logits"], axis=1),
    ]
    constants = {"first": np.zeros((1, 1, 26, 26), dtype=np.float32)}
    write_graph(path, nodes, {"images": (FLOAT, [1, 3, 416, 416])}, {"logits": (FLOAT, 4)}, constants)
