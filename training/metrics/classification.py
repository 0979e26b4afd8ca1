"""How often the right class comes first, or among the first five."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.pictures.imaging import FloatArray
from training.metrics.bootstrap import CountArray, DoubleArray
from training.metrics.calibration import Calibration, compute_calibration


@dataclass(frozen=True, slots=True)
class ClassificationMetrics:
    """Shares of the pictures, each 0..1.

    Attributes:
        top_1: the true class is the most probable one.
        top_5: the true class is among the five most probable ones.
        per_class_accuracy: top-1 among the pictures of a class, by class id; nan for a class without pictures.
    """

    top_1: float
    top_5: float
    per_class_accuracy: tuple[float, ...]


class Accuracy:
    """Ranks of the true classes over a whole split; of equally probable classes the lower id comes first."""

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._labels: list[int] = []  # the true class of each picture
        self._ranks: list[int] = []  # the place that it was given, 0 the first
        self._guesses: list[int] = []  # the class that came first
        self._confidences: list[float] = []  # the probability of that class

    @property
    def num_pictures(self) -> int:
        """Pictures counted so far."""
        return len(self._labels)

    def update(self, class_probs: FloatArray, labels: NDArray[np.int64]) -> None:
        """Add pictures: class_probs [N, C] (or logits: only their order counts) and true class ids labels [N].

        Raises:
            ValueError: the shapes do not fit, or a label is no class.
        """
        num_classes = self._num_classes
        if class_probs.shape != (len(labels), num_classes):
            raise ValueError(f"class_probs are {class_probs.shape}; wanted {(len(labels), num_classes)}")
        if np.any((labels < 0) | (labels >= num_classes)):
            raise ValueError(f"labels are {labels.min()}..{labels.max()}; wanted 0..{num_classes - 1}")
        order = np.argsort(-class_probs, axis=1, kind="stable")
        self._labels += labels.tolist()
        self._ranks += np.argmax(order == labels[:, None], axis=1).tolist()
        self._guesses += order[:, 0].tolist()
        self._confidences += class_probs.max(axis=1).tolist()

    def compute(self) -> ClassificationMetrics:
        """Sum, then divide once.

        Raises:
            ValueError: no picture was counted.
        """
        if not self._labels:
            raise ValueError("no picture was counted; wanted at least one")
        counts = np.zeros((self._num_classes, self._num_classes), dtype=np.int64)  # pictures by true class and its rank
        np.add.at(counts, (self._labels, self._ranks), 1)
        pictures, first = counts.sum(axis=1), counts[:, 0]
        per_class = np.divide(first, pictures, out=np.full(len(pictures), np.nan), where=pictures > 0)
        return ClassificationMetrics(
            top_1=float(first.sum() / pictures.sum()),
            top_5=float(counts[:, :5].sum() / pictures.sum()),
            per_class_accuracy=tuple(per_class.tolist()),
        )

    def confusion(self) -> CountArray:
        """[C, C] pictures by true class (row) and the class that came first (column)."""
        counts = np.zeros((self._num_classes, self._num_classes), dtype=np.int64)
        np.add.at(counts, (self._labels, self._guesses), 1)
        return counts

    def calibrate(self) -> Calibration:
        """Compare how sure the first class was with how often it was right."""
        return compute_calibration(np.array(self._confidences), np.array(self._ranks) == 0)

    def estimate(self, repeats: CountArray) -> DoubleArray:
        """[R, P] how often each picture is in a sample, to top-1 [R] of each sample."""
        shares: DoubleArray = (repeats @ (np.array(self._ranks) == 0)) / repeats.sum(axis=1)
        return shares
