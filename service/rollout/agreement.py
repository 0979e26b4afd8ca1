"""How much two models say the same about a picture, task by task: pure, numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.engine import postprocess
from service.engine.contract import ModelContract
from service.engine.engine import Prediction
from service.engine.postprocess import Detection
from service.pictures.imaging import Letterbox, UInt8Array

# As a person sees them: boxes that /detect gives by default, and overlaps that count as the same object.
SCORE_THRESHOLD = 0.3
IOU_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Agreement:
    """Three figures from 0 (nothing in common) to 1 (the same).

    Attributes:
        top_1: 1 where both name the same class first, else 0.
        mask_iou: mean over the classes in either mask of intersection over union.
        box_f1: harmonic mean of the shares of boxes that have a partner of their class; 1 where neither has boxes.
    """

    top_1: float
    mask_iou: float
    box_f1: float


def compare(
    one: tuple[Prediction, Letterbox, ModelContract], two: tuple[Prediction, Letterbox, ModelContract]
) -> Agreement:
    """Compare what two models say about one picture, in pixels of the original; their class names must be the same."""
    masks = [postprocess.mask(said, place, mask_stride=contract.mask_stride) for said, place, contract in (one, two)]
    boxes = [
        postprocess.detections(
            said,
            place,
            contract.detection_classes,
            score_threshold=SCORE_THRESHOLD,
            max_detections=contract.max_detections,
        )
        for said, place, contract in (one, two)
    ]
    return Agreement(
        top_1=float(one[0].class_probs.argmax() == two[0].class_probs.argmax()),
        mask_iou=compute_mask_iou(masks[0], masks[1]),
        box_f1=compute_box_f1(boxes[0], boxes[1]),
    )


def compute_mask_iou(one: UInt8Array, two: UInt8Array) -> float:
    """Mean intersection over union of two masks [H, W], over the classes that occur in either."""
    ones, twos = np.bincount(one.ravel(), minlength=256), np.bincount(two.ravel(), minlength=256)
    both = np.bincount(one[one == two], minlength=256)
    union = ones + twos - both
    return float((both[union > 0] / union[union > 0]).mean())


def compute_box_f1(one: Sequence[Detection], two: Sequence[Detection]) -> float:
    """F1 of two lists of boxes, best first; each box finds at most one partner of its class."""
    if not one and not two:
        return 1.0
    free = list(range(len(two)))
    pairs = 0
    for detection in one:
        overlaps = {i: compute_iou(detection.box, two[i].box) for i in free if two[i].label == detection.label}
        best = max(overlaps, key=overlaps.__getitem__, default=None)
        if best is not None and overlaps[best] >= IOU_THRESHOLD:
            free.remove(best)
            pairs += 1
    return 2 * pairs / (len(one) + len(two))


def compute_iou(one: tuple[float, float, float, float], two: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes xyxy; 0 where both are empty."""
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    both = max(0.0, width) * max(0.0, height)
    union = (one[2] - one[0]) * (one[3] - one[1]) + (two[2] - two[0]) * (two[3] - two[1]) - both
    return both / union if union > 0 else 0.0
