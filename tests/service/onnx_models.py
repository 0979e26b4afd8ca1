"""A real ONNX file that fulfils the contract of the fakes; a module that imports this is skipped without onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.contract import METADATA_KEY, OUTPUT_NAMES, ModelContract
from tests.service.fakes import BOXES, FOUND, LABELS, SCORES, SIZE, STRIDE

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError:
    pytest.skip("onnx is not installed; it builds model files", allow_module_level=True)


def write_tiny_model(path: Path, contract: ModelContract | None, *, outputs: slice = slice(None)) -> Path:
    """Write the network of `FakeSession` as an ONNX file, with the outputs of the contract's tasks, or some of them."""
    constants: dict[str, NDArray[Any]] = {
        "corner": np.array([0, 0, 0, 0], dtype=np.int64),
        "far": np.array([2**31, 2**31, 2**31, 1], dtype=np.int64),
        "axes": np.array([0, 1, 2, 3], dtype=np.int64),
        "steps": np.array([1, STRIDE, STRIDE, 1], dtype=np.int64),
        "channel": np.array([3], dtype=np.int64),
        "sides": np.array([1, 2], dtype=np.int64),
        "half": np.array(127, dtype=np.uint8),
        "sharpness": np.array(1 / 20, dtype=np.float32),
        "nothing": np.array(0, dtype=np.float32),
        "per_row": np.array([-1, 1], dtype=np.int64),
        "per_box": np.array([-1, 1, 1], dtype=np.int64),
        "last": np.array([1], dtype=np.int64),
        "all_boxes": BOXES[None],
        "all_scores": SCORES[None],
        "all_labels": LABELS[None].astype(np.float32),
        "found": np.array([FOUND], dtype=np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Slice", ["images", "corner", "far", "axes", "steps"], ["red"]),
        node("Squeeze", ["red", "channel"], ["red_cells"]),
        node("Greater", ["red_cells", "half"], ["is_red"]),
        node("Cast", ["is_red"], ["mask"], to=TensorProto.UINT8),
        node("Cast", ["images"], ["values"], to=TensorProto.FLOAT),
        node("ReduceMean", ["values", "sides"], ["mean"], keepdims=0),
        node("Mul", ["mean", "sharpness"], ["logits"]),
        node("Softmax", ["logits"], ["class_probs"], axis=1),
        node("ReduceSum", ["mean", "last"], ["sum"], keepdims=0),
        node("Mul", ["sum", "nothing"], ["zeros"]),
        node("Reshape", ["zeros", "per_box"], ["zeros_3d"]),
        node("Reshape", ["zeros", "per_row"], ["zeros_2d"]),
        node("Add", ["all_boxes", "zeros_3d"], ["boxes"]),
        node("Add", ["all_scores", "zeros_2d"], ["scores"]),
        node("Add", ["all_labels", "zeros_2d"], ["labels_float"]),
        node("Cast", ["labels_float"], ["labels"], to=TensorProto.INT64),
        node("Add", ["found", "zeros"], ["found_float"]),
        node("Cast", ["found_float"], ["num_detections"], to=TensorProto.INT64),
    ]
    cells, places = SIZE // STRIDE, len(SCORES)
    results = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", places, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", places]),
        helper.make_tensor_value_info("labels", TensorProto.INT64, ["N", places]),
        helper.make_tensor_value_info("num_detections", TensorProto.INT64, ["N"]),
        helper.make_tensor_value_info("mask", TensorProto.UINT8, ["N", cells, cells]),
        helper.make_tensor_value_info("class_probs", TensorProto.FLOAT, ["N", 3]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIZE, SIZE, 3])
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    wanted = OUTPUT_NAMES if contract is None else tuple(contract.output_shapes)
    served = [result for result in results if result.name in wanted]
    graph = helper.make_graph(nodes, "tiny", [images], served[outputs], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if contract is not None:
        helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save_model(model, path)
    return path
