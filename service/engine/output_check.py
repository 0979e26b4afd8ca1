"""Whether what a model says about a picture can be true: pure, numpy only, microseconds a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.contract import ModelContract


def find_wrong_shape(outputs: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]], images: int) -> str:
    """Say which output has not the wanted shape, those of a picture with their number before it; empty if all have."""
    for name, shape in shapes.items():
        if outputs[name].shape != (images, *shape):
            return f"{name} has the shape {outputs[name].shape}, not {(images, *shape)}"
    return ""


def find_fault(outputs: Mapping[str, NDArray[Any]], index: int, contract: ModelContract) -> str:
    """Say what cannot be true about one picture; empty if all can.

    Args:
        outputs: the arrays of a pass, of the right shapes.
        index: of the picture in them.
        contract: of the model.
    """
    count = int(outputs["num_detections"][index])
    if not 0 <= count <= contract.max_detections:
        return f"num_detections is {count}, not 0 to {contract.max_detections}"
    for name, values in (
        ("boxes", outputs["boxes"][index, :count]),
        ("scores", outputs["scores"][index, :count]),
        ("class_probs", outputs["class_probs"][index]),
    ):
        if not np.isfinite(values).all():
            return f"{name} holds values that are no finite numbers"
    for name, ids, classes in (
        ("labels", outputs["labels"][index, :count], contract.detection_classes),
        ("mask", outputs["mask"][index], contract.segmentation_classes),
    ):
        if ids.size and not (ids.max() < len(classes) and ids.min() >= 0):
            return f"{name} holds {ids.min()} to {ids.max()}, where there are {len(classes)} classes"
    return ""
