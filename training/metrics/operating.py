"""What a threshold on the scores of boxes gives: precision, recall and duplicates of what is left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.metrics.bootstrap import DoubleArray
from training.metrics.calibration import UncalibratedError


@dataclass(frozen=True, slots=True)
class JudgedBoxes:
    """The detections of a split, each judged at an IoU of 0.5; those in crowds are left out.

    A duplicate is a box of the same class and picture as a better one, on an object that a better one has found
    already, or, where no object is, on a better box: at an IoU of 0.5 too. Each counts as wrong.

    Attributes:
        scores: [D] 0..1, in any order.
        right: [D] found an object that no better one had found.
        duplicates: [D] shows again what a better one shows.
        objects: to find.
        pictures: of the split.
    """

    scores: DoubleArray
    right: NDArray[np.bool_]
    duplicates: NDArray[np.bool_]
    objects: int
    pictures: int


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What the boxes of all classes and pictures together are like that score at least so much.

    Attributes:
        score_threshold: 0..1.
        precision: share of the boxes that are right; 0 where there is no box.
        recall: share of the objects that are found; 0 where there is no object.
        f1: harmonic mean of the two.
        boxes_per_picture: all of them.
        duplicates_per_picture: see `JudgedBoxes`.
    """

    score_threshold: float
    precision: float
    recall: float
    f1: float
    boxes_per_picture: float
    duplicates_per_picture: float


def measure_at(judged: JudgedBoxes, score_threshold: float) -> OperatingPoint:
    """Leave out the boxes that score less, and count.

    Raises:
        ValueError: there is no picture.
    """
    if not judged.pictures:
        raise ValueError("no picture was counted; wanted at least one")
    kept = judged.scores >= score_threshold
    boxes, right = int(kept.sum()), int(judged.right[kept].sum())
    return OperatingPoint(
        score_threshold=score_threshold,
        precision=right / max(boxes, 1),
        recall=right / max(judged.objects, 1),
        f1=2 * right / max(boxes + judged.objects, 1),
        boxes_per_picture=boxes / judged.pictures,
        duplicates_per_picture=int(judged.duplicates[kept].sum()) / judged.pictures,
    )


def find_best_threshold(judged: JudgedBoxes) -> float:
    """Of 0.01, 0.02, ... 0.99 the threshold of the best F1; of equal ones the highest.

    Hundredths, because F1 is flat about its best: more digits would tell one sample of pictures from the next.

    Raises:
        UncalibratedError: no box is right.
    """
    if not judged.right.any():
        raise UncalibratedError(
            f"none of {len(judged.scores)} boxes is right, so that no threshold is better than another"
        )
    thresholds = [hundredths / 100 for hundredths in range(99, 0, -1)]
    return max(thresholds, key=lambda threshold: measure_at(judged, threshold).f1)
