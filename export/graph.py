"""The end of the graph: class-wise NMS and a fixed number of boxes, for any batch size, in standard ONNX operators."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.config import InferenceConfig

DENSE_BOXES, DENSE_SCORES = "dense_boxes", "dense_scores"


def append_detections(model: onnx.ModelProto, config: InferenceConfig, *, num_anchors: int) -> None:
    """Replace the dense outputs by `boxes`, `scores`, `labels` and `num_detections`, best first, padded with zeros.

    ONNX's NonMaxSuppression returns a list of (picture, class, anchor) over the whole batch, of a length that depends
    on the data. Its scores are scattered back into zeros, so that one TopK per picture sorts, limits and pads them.

    Args:
        model: with outputs `dense_boxes` [N, A, 4] and `dense_scores` [N, A, D]; changed in place.
        config: floor, threshold and limit of NMS, as `training.inference.select_detections` reads them.
        num_anchors: A.
    """
    limit = config.max_detections
    constants: dict[str, NDArray[np.int64] | NDArray[np.float32]] = {
        "nms_limit": np.array(limit, dtype=np.int64),
        "nms_iou_threshold": np.array(config.iou_threshold, dtype=np.float32),
        "nms_score_floor": np.array(config.score_floor, dtype=np.float32),
        "top_k": np.array([limit], dtype=np.int64),
        "num_anchors": np.array(num_anchors, dtype=np.int64),
        "flat_shape": np.array([0, -1], dtype=np.int64),
        "last_axis": np.array([-1], dtype=np.int64),
        "zero": np.array(0, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Transpose", [DENSE_SCORES], ["class_scores"], perm=[0, 2, 1]),
        helper.make_node(
            "NonMaxSuppression",
            [DENSE_BOXES, "class_scores", "nms_limit", "nms_iou_threshold", "nms_score_floor"],
            ["selected"],
        ),
        helper.make_node("GatherND", ["class_scores", "selected"], ["selected_scores"]),
        helper.make_node("Shape", ["class_scores"], ["class_scores_shape"]),
        helper.make_node("ConstantOfShape", ["class_scores_shape"], ["no_scores"]),
        helper.make_node("ScatterND", ["no_scores", "selected", "selected_scores"], ["kept_scores"]),
        helper.make_node("Reshape", ["kept_scores", "flat_shape"], ["flat_scores"]),
        helper.make_node("TopK", ["flat_scores", "top_k"], ["scores", "flat_indices"], axis=1),
        helper.make_node("Greater", ["scores", "zero"], ["is_detection"]),
        helper.make_node("Cast", ["is_detection"], ["is_detection_int"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["is_detection_int", "last_axis"], ["num_detections"], keepdims=0),
        helper.make_node("Div", ["flat_indices", "num_anchors"], ["padded_labels"]),
        helper.make_node("Mul", ["padded_labels", "is_detection_int"], ["labels"]),
        helper.make_node("Mod", ["flat_indices", "num_anchors"], ["anchor_indices"]),
        helper.make_node("Unsqueeze", ["anchor_indices", "last_axis"], ["anchor_positions"]),
        helper.make_node("GatherND", [DENSE_BOXES, "anchor_positions"], ["padded_boxes"], batch_dims=1),
        helper.make_node("Cast", ["is_detection"], ["is_detection_float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["is_detection_float", "last_axis"], ["is_detection_column"]),
        helper.make_node("Mul", ["padded_boxes", "is_detection_column"], ["boxes"]),
    ]
    graph = model.graph
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.node.extend(nodes)
    outputs = {output.name: output for output in graph.output}
    batch = outputs[DENSE_BOXES].type.tensor_type.shape.dim[0].dim_param
    outputs["boxes"] = helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, limit, 4])
    outputs["scores"] = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, limit])
    outputs["labels"] = helper.make_tensor_value_info("labels", TensorProto.INT64, [batch, limit])
    outputs["num_detections"] = helper.make_tensor_value_info("num_detections", TensorProto.INT64, [batch])
    del graph.output[:]
    graph.output.extend(
        outputs[name] for name in ("boxes", "scores", "labels", "num_detections", "mask", "class_probs")
    )
