"""Boxes of several detectors made one list, by weighted boxes fusion (Solovyev et al., arXiv:1910.13302)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.pictures.imaging import FloatArray
from training.data.labelling.answers import BoxAnswer
from training.data.labelling.suppression import compute_iou


@dataclass(frozen=True, slots=True, eq=False)
class Witness:
    """What one detector says about a picture.

    Attributes:
        answer: its labels are positions in the names of all detectors together.
        weight: of its scores, > 0.
        knows: [P] whether it knows each of these names.
    """

    answer: BoxAnswer
    weight: float
    knows: Sequence[bool]


def fuse(witnesses: Sequence[Witness], iou_threshold: float) -> BoxAnswer:
    """Fuse class by class; boxes of a class that one detector alone knows stay as they are.

    Args:
        witnesses: one a detector.
        iou_threshold: boxes that overlap by more are of one object.

    Returns:
        Boxes, the best first. A box is the mean of those of its object, weighed by score and weight; its score their
        weighted mean, and less where fewer boxes than detectors have found the object.
    """
    found: list[BoxAnswer] = []
    for label in range(len(witnesses[0].knows)):
        knowing = [witness for witness in witnesses if witness.knows[label]]
        chosen = [witness.answer.labels == label for witness in knowing]
        boxes = np.concatenate([each.answer.boxes[rows] for each, rows in zip(knowing, chosen, strict=True)])
        scores = np.concatenate([each.answer.scores[rows] for each, rows in zip(knowing, chosen, strict=True)])
        if len(knowing) > 1:
            counts = [int(rows.sum()) for rows in chosen]
            weights = np.repeat([witness.weight for witness in knowing], counts).astype(np.float32)
            boxes, scores = _fuse_class(boxes, scores * weights, iou_threshold, len(knowing))
            scores /= sum(witness.weight for witness in knowing)
        found.append(BoxAnswer(boxes, scores, np.full(len(boxes), label)))
    scores = np.concatenate([one.scores for one in found])
    order = np.argsort(-scores, kind="stable")
    boxes, labels = np.concatenate([one.boxes for one in found]), np.concatenate([one.labels for one in found])
    return BoxAnswer(boxes[order], scores[order].clip(0, 1), labels[order])


def _fuse_class(
    boxes: FloatArray, scores: FloatArray, iou_threshold: float, detectors: int
) -> tuple[FloatArray, FloatArray]:
    """Section 3 of the paper, for [K, 4] boxes of one class and [K] scores times weights.

    Returns:
        [M, 4] fused boxes, and their mean scores times min(boxes of the object, detectors).
    """
    fused = np.zeros_like(boxes)  # the first `count` rows are objects
    sums = np.zeros_like(boxes)  # of boxes times scores
    totals, sizes = np.zeros_like(scores), np.zeros(len(scores), dtype=np.int64)
    count = 0
    for row in np.argsort(-scores, kind="stable"):
        iou = compute_iou(boxes[row, None], fused[:count])[0]
        place = int(iou.argmax()) if count else 0
        if not count or not iou[place] > iou_threshold:
            place, count = count, count + 1
        sums[place] += scores[row] * boxes[row]
        totals[place] += scores[row]
        sizes[place] += 1
        fused[place] = sums[place] / totals[place]
    shares = (np.minimum(sizes, detectors) / sizes.clip(1)).astype(np.float32)
    return fused[:count], (totals * shares)[:count]
