"""The end of the graph: class-wise NMS and a fixed number of boxes, for any batch size, in standard ONNX operators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.config import InferenceConfig
from training.inference import calibrate_floor

CANDIDATE_BOXES, CANDIDATE_SCORES, CANDIDATE_LABELS = "candidate_boxes", "candidate_scores", "candidate_labels"
_CANDIDATES = {CANDIDATE_BOXES, CANDIDATE_SCORES, CANDIDATE_LABELS}


def append_detections(model: onnx.ModelProto, config: InferenceConfig, *, input_size: int) -> None:
    """Replace the candidates by `boxes`, `scores`, `labels` and `num_detections`, best first, padded with zeros.

    The new outputs come after all others (`order_outputs`).

    One NMS serves all classes: candidates are moved apart by their class, so that only boxes of one class overlap
    (as torchvision's batched_nms does). NonMaxSuppression with a score a class and box costs 4 ms of 14, this one 0.1.
    It returns a list of (picture, 0, candidate) over the whole batch, of a length that depends on the data. Its scores
    are scattered back into zeros, so that one TopK per picture sorts, limits and pads them.

    Args:
        model: with outputs `candidate_boxes` [N, K, 4], `candidate_scores` [N, K] and `candidate_labels` [N, K];
            changed in place.
        config: floor, threshold and limit of NMS, as `training.inference.select_detections` reads them; K is at least
            `max_detections`.
        input_size: no box has a coordinate above it; in input pixels.
    """
    limit = config.max_detections
    constants: dict[str, NDArray[np.int64] | NDArray[np.float32]] = {
        "nms_limit": np.array(limit, dtype=np.int64),
        "nms_iou_threshold": np.array(config.iou_threshold, dtype=np.float32),
        "nms_score_floor": np.array(calibrate_floor(config), dtype=np.float32),
        "class_distance": np.array(input_size + 1, dtype=np.float32),
        "top_k": np.array([limit], dtype=np.int64),
        "last_axis": np.array([-1], dtype=np.int64),
        "class_axis": np.array([1], dtype=np.int64),
        "picture_and_candidate": np.array([0, 2], dtype=np.int64),
        "zero": np.array(0, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Cast", [CANDIDATE_LABELS], ["candidate_labels_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["candidate_labels_float", "class_distance"], ["class_shifts"]),
        helper.make_node("Unsqueeze", ["class_shifts", "last_axis"], ["class_shift_columns"]),
        helper.make_node("Add", [CANDIDATE_BOXES, "class_shift_columns"], ["shifted_boxes"]),
        helper.make_node("Unsqueeze", [CANDIDATE_SCORES, "class_axis"], ["scores_of_one_class"]),
        helper.make_node(
            "NonMaxSuppression",
            ["shifted_boxes", "scores_of_one_class", "nms_limit", "nms_iou_threshold", "nms_score_floor"],
            ["selected"],
        ),
        helper.make_node("Gather", ["selected", "picture_and_candidate"], ["selected_places"], axis=1),
        helper.make_node("GatherND", [CANDIDATE_SCORES, "selected_places"], ["selected_scores"]),
        helper.make_node("Shape", [CANDIDATE_SCORES], ["candidate_shape"]),
        helper.make_node("ConstantOfShape", ["candidate_shape"], ["no_scores"]),
        helper.make_node("ScatterND", ["no_scores", "selected_places", "selected_scores"], ["kept_scores"]),
        helper.make_node("TopK", ["kept_scores", "top_k"], ["scores", "kept"], axis=1),
        helper.make_node("Greater", ["scores", "zero"], ["is_detection"]),
        helper.make_node("Cast", ["is_detection"], ["is_detection_int"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["is_detection_int", "last_axis"], ["num_detections"], keepdims=0),
        helper.make_node("GatherElements", [CANDIDATE_LABELS, "kept"], ["padded_labels"], axis=1),
        helper.make_node("Mul", ["padded_labels", "is_detection_int"], ["labels"]),
        helper.make_node("Unsqueeze", ["kept", "last_axis"], ["kept_places"]),
        helper.make_node("GatherND", [CANDIDATE_BOXES, "kept_places"], ["padded_boxes"], batch_dims=1),
        helper.make_node("Cast", ["is_detection"], ["is_detection_float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["is_detection_float", "last_axis"], ["is_detection_column"]),
        helper.make_node("Mul", ["padded_boxes", "is_detection_column"], ["boxes"]),
    ]
    graph = model.graph
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.node.extend(nodes)
    outputs = {output.name: output for output in graph.output}
    batch = outputs[CANDIDATE_BOXES].type.tensor_type.shape.dim[0].dim_param
    outputs["boxes"] = helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, limit, 4])
    outputs["scores"] = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, limit])
    outputs["labels"] = helper.make_tensor_value_info("labels", TensorProto.INT64, [batch, limit])
    outputs["num_detections"] = helper.make_tensor_value_info("num_detections", TensorProto.INT64, [batch])
    del graph.output[:]
    graph.output.extend(output for name, output in outputs.items() if name not in _CANDIDATES)


def order_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Put the outputs into the order of the contract; changes the model in place."""
    outputs = {output.name: output for output in model.graph.output}
    del model.graph.output[:]
    model.graph.output.extend(outputs[name] for name in names)
