"""Overlap of boxes, and suppression of what others cover. Boxes are xyxy, in pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.pictures.imaging import FloatArray


def compute_iou(boxes: FloatArray, others: FloatArray) -> FloatArray:
    """Intersection over union of each of [K, 4] boxes with each of [M, 4]: [K, M], 0..1; 0 where both are empty."""
    corners = np.maximum(boxes[:, None, :2], others[None, :, :2]), np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (corners[1] - corners[0]).clip(0).prod(axis=2)
    areas, other_areas = ((each[:, 2:] - each[:, :2]).clip(0).prod(axis=1) for each in (boxes, others))
    union = areas[:, None] + other_areas[None] - shared
    iou: FloatArray = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def suppress(
    boxes: FloatArray, scores: FloatArray, labels: NDArray[np.int64], iou_threshold: float
) -> NDArray[np.intp]:
    """Greedy suppression within each class: of boxes that overlap by more than a threshold the best stays.

    Args:
        boxes: [K, 4].
        scores: [K].
        labels: [K].
        iou_threshold: 0..1.

    Returns:
        Positions of those that stay, the best first; of equal scores the first one's.
    """
    order = np.argsort(-scores, kind="stable")
    covers = compute_iou(boxes[order], boxes[order]) > iou_threshold
    covers &= labels[order][:, None] == labels[order][None]
    stays = np.ones(len(order), dtype=np.bool_)
    for position in range(len(order)):
        if stays[position]:
            stays[position + 1 :] &= ~covers[position, position + 1 :]
    return order[stays]
