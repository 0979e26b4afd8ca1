"""How well masks agree with the ground truth: one confusion matrix over the whole split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.pictures.imaging import UInt8Array
from training.data.taxonomy import VOID
from training.metrics.bootstrap import CountArray, DoubleArray, mean_over_present


@dataclass(frozen=True, slots=True)
class SegmentationMetrics:
    """What one confusion matrix says; everything is 0..1.

    Attributes:
        mean_iou: mean over the classes that have ground-truth pixels, background among them.
        foreground_mean_iou: the same without class 0, the background; nan if nothing else has pixels.
        pixel_accuracy: share of the labelled pixels that are right.
        per_class_iou: by class id; nan for a class without ground-truth pixels.
    """

    mean_iou: float
    foreground_mean_iou: float
    pixel_accuracy: float
    per_class_iou: tuple[float, ...]


class ConfusionMatrix:
    """Counts of (true class, predicted class) over all labelled pixels of a split, at the original resolution.

    Of each picture it keeps what IoU needs, the diagonal and the margins.

    Attributes:
        counts: [C, C] labelled pixels by true class (row) and predicted class (column), of all pictures so far.
    """

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self.counts: CountArray = np.zeros((num_classes, num_classes), dtype=np.int64)
        self._pixels: list[CountArray] = []  # [3, C] of each picture: right, true, union

    @property
    def num_pictures(self) -> int:
        """Pictures counted so far."""
        return len(self._pixels)

    def update(self, predicted: UInt8Array, target: UInt8Array) -> None:
        """Add one picture: class ids [H, W] and ground truth [H, W]; where the latter is `VOID`, nothing counts.

        Raises:
            ValueError: the shapes differ, or a value is no class.
        """
        counts = _count_pairs(predicted, target, self._num_classes)
        self.counts = self.counts + counts
        self._pixels.append(np.stack(_right_true_union(counts)))

    def compute(self) -> SegmentationMetrics:
        """Intersection over union as PASCAL VOC defines it (VOC 2012 development kit, VOCevalseg.m).

        A class that is predicted but has no ground truth has no IoU of its own: its pixels count against the classes
        that they were taken from.

        Raises:
            ValueError: no labelled pixel was counted.
        """
        right, true, union = _right_true_union(self.counts)
        if not true.any():
            raise ValueError("no labelled pixel was counted; wanted at least one picture with ground truth")
        iou = np.divide(right, union, out=np.full(len(true), np.nan), where=true > 0)
        foreground = iou[1:][true[1:] > 0]
        return SegmentationMetrics(
            mean_iou=float(iou[true > 0].mean()),
            foreground_mean_iou=float(foreground.mean()) if foreground.size else float("nan"),
            pixel_accuracy=float(right.sum() / true.sum()),
            per_class_iou=tuple(iou.tolist()),
        )

    def estimate(self, repeats: CountArray) -> DoubleArray:
        """[R, P] how often each picture is in a sample, to the mean IoU [R] of each sample.

        The mean runs over the classes that have ground-truth pixels in the sample; nan where none has.
        """
        right, true, union = np.tensordot(repeats, np.stack(self._pixels), axes=1).swapaxes(0, 1)  # [R, C] each
        return mean_over_present(right / np.maximum(union, 1), true > 0)


def miou_eps_per_image(predicted: UInt8Array, target: UInt8Array, num_classes: int, eps: float = 1e-6) -> float:
    """Compute the metric that the student report seems to have used, for one picture; average it over the pictures.

    It is here to show why that report said 0.954, and for nothing else: the mean runs over all classes, and a class
    that is in neither mask scores (0 + eps) / (0 + eps) = 1. With one or two classes a picture, 19 of 21 terms are 1,
    so that all-background reaches 0.9187 on the 60 mini VOC val masks, where its honest mean IoU is 0.034.
    Void pixels are left out; counting them as background gives 0.9199 there.

    Args:
        predicted: [H, W] class ids.
        target: [H, W] class ids or `VOID`.
        num_classes: how many terms the mean has.
        eps: added to intersection and union; in pixels.

    Returns:
        0..1.

    Raises:
        ValueError: the shapes differ, or a value is no class.
    """
    right, _, union = _right_true_union(_count_pairs(predicted, target, num_classes))
    return float(((right + eps) / (union + eps)).mean())


def _count_pairs(predicted: UInt8Array, target: UInt8Array, num_classes: int) -> NDArray[np.int64]:
    """[C, C] pixels by true class (row) and predicted class (column)."""
    if predicted.shape != target.shape:
        raise ValueError(f"the predicted mask is {predicted.shape}, the ground truth {target.shape}; wanted one shape")
    labelled = target != VOID
    true, guess = target[labelled].astype(np.int64), predicted[labelled].astype(np.int64)
    highest = max(true.max(initial=0), guess.max(initial=0))
    if highest >= num_classes:
        raise ValueError(f"a mask holds the value {highest}; wanted classes 0..{num_classes - 1}")
    return np.bincount(true * num_classes + guess, minlength=num_classes**2).reshape(num_classes, num_classes)


def _right_true_union(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pixels per class that are right, that are truly of the class, and that are of the class or taken for it."""
    right, true, guessed = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)
    return right, true, true + guessed - right
