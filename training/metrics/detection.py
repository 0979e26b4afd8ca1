"""COCO average precision of boxes, equal to that of pycocotools.

One thing is stricter: a detection with x2 < x1 or y2 < y1 is wrong here, while pycocotools may leave it out,
because its area is negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.pictures.imaging import FloatArray
from training.data.datasets import DetectionSample
from training.metrics.bootstrap import CountArray, DoubleArray, mean_over_present
from training.metrics.calibration import Calibration, compute_calibration
from training.metrics.operating import JudgedBoxes

# pycocotools/cocoeval.py, Params.setDetParams: ten overlaps, 101 points of recall, 100 detections.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 100  # the best of a picture and class count

BoolArray: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DetectionMetrics:
    """Average precision, 0..1; means run over the classes that have ground-truth objects.

    Attributes:
        map_50: at an IoU of 0.5.
        map_50_95: averaged over the IoUs 0.50, 0.55, ... 0.95.
        per_class_ap_50: at an IoU of 0.5, by class id; nan for a class without objects.
        per_class_ap_50_95: averaged over the ten IoUs, by class id; nan for a class without objects.
    """

    map_50: float
    map_50_95: float
    per_class_ap_50: tuple[float, ...]
    per_class_ap_50_95: tuple[float, ...]


class _Judged(NamedTuple):
    """The detections of one class in one picture, best first; T IoU thresholds, D detections."""

    picture: int  # its place in the split
    scores: DoubleArray  # [D]
    matched: BoolArray  # [T, D] found an object that no better detection had found
    ignored: BoolArray  # [T, D] found no object but lies in a crowd: neither right nor wrong
    again: BoolArray  # [D] shows what a better one shows, see `operating.JudgedBoxes`


class AveragePrecision:
    """Detections of a whole split, judged picture by picture (COCOeval.evaluateImg and .accumulate of pycocotools)."""

    def __init__(self, num_classes: int) -> None:
        self._judged: list[list[_Judged]] = [[] for _ in range(num_classes)]
        self._num_classes = num_classes
        self._objects: list[CountArray] = []  # [C] of each picture

    @property
    def num_pictures(self) -> int:
        """Pictures counted so far."""
        return len(self._objects)

    @property
    def objects(self) -> CountArray:
        """[C] objects to find."""
        return sum(self._objects, start=np.zeros(self._num_classes, dtype=np.int64))

    def update(
        self,
        *,
        boxes: FloatArray,
        scores: FloatArray,
        labels: NDArray[np.int64],
        target_boxes: FloatArray,
        target_labels: NDArray[np.int64],
        crowd_boxes: FloatArray,
        crowd_labels: NDArray[np.int64],
    ) -> None:
        """Add one picture; all boxes are xyxy, in pixels of the original picture.

        Args:
            boxes: [K, 4] detections, in any order.
            scores: [K] of the detections; of equal ones the earlier counts as better.
            labels: [K] class ids.
            target_boxes: [M, 4] objects to find.
            target_labels: [M] class ids.
            crowd_boxes: [X, 4] regions in which detections that found no object are not held against the model.
            crowd_labels: [X] class ids.

        Raises:
            ValueError: lengths do not fit, or a label is no class.
        """
        if len(scores) != len(boxes):
            raise ValueError(f"there are {len(scores)} scores for {len(boxes)} boxes; wanted as many")
        for kind_labels, kind_boxes in ((labels, boxes), (target_labels, target_boxes), (crowd_labels, crowd_boxes)):
            self._check(kind_labels, kind_boxes)
        picture = len(self._objects)
        self._objects.append(np.bincount(target_labels, minlength=self._num_classes))
        for label in np.unique(labels).tolist():
            mine = np.flatnonzero(labels == label)
            best = mine[np.argsort(-scores[mine], kind="stable")][:MAX_DETECTIONS]
            self._judged[label].append(
                _judge(
                    picture,
                    boxes[best].astype(np.float64),
                    scores[best].astype(np.float64),
                    target_boxes[target_labels == label].astype(np.float64),
                    crowd_boxes[crowd_labels == label].astype(np.float64),
                )
            )

    def add_sample(
        self, sample: DetectionSample, *, boxes: FloatArray, scores: FloatArray, labels: NDArray[np.int64]
    ) -> None:
        """Add the detections in one labelled picture; see `update`."""
        self.update(
            boxes=boxes,
            scores=scores,
            labels=labels,
            target_boxes=sample.boxes,
            target_labels=sample.labels,
            crowd_boxes=sample.crowd_boxes,
            crowd_labels=sample.crowd_labels,
        )

    def compute(self) -> DetectionMetrics:
        """Average over the classes with objects.

        Raises:
            ValueError: no class has an object.
        """
        measured = np.flatnonzero(self.objects)
        if not measured.size:
            raise ValueError("no picture has an object to find; wanted at least one")
        precisions = self.curves().mean(axis=2)
        return DetectionMetrics(
            map_50=float(precisions[measured, 0].mean()),
            map_50_95=float(precisions[measured].mean()),
            per_class_ap_50=tuple(precisions[:, 0].tolist()),
            per_class_ap_50_95=tuple(precisions.mean(axis=1).tolist()),
        )

    def curves(self) -> DoubleArray:
        """[C, T, 101] the best precision at each of `RECALLS` or beyond, by class and IoU threshold.

        Its mean over the recalls is average precision. 0 at recalls that are never reached, nan for a class without
        objects.
        """
        curves = np.full((self._num_classes, len(IOU_THRESHOLDS), len(RECALLS)), np.nan)
        for label in np.flatnonzero(self.objects).tolist():
            curves[label] = _precision_at_recalls(self._judged[label], int(self.objects[label]))
        return curves

    def found_in_each(self) -> DoubleArray:
        """[P] the share of a picture's objects that as many of its best detections find, at an IoU of 0.5.

        Detections in crowds are passed over. nan for a picture without objects.
        """
        judged: list[list[_Judged]] = [[] for _ in self._objects]
        for one in (one for of_class in self._judged for one in of_class):
            judged[one.picture].append(one)
        shares = np.full(len(judged), np.nan)
        for picture, (mine, objects) in enumerate(zip(judged, self._objects, strict=True)):
            count = int(objects.sum())
            if not count:
                continue
            scores, right = _judge_scores(mine)
            shares[picture] = right[np.argsort(-scores, kind="stable")[:count]].sum() / count
        return shares

    def calibrate(self) -> Calibration | None:
        """Compare the scores of all detections with how often they found an object, at an IoU of 0.5.

        Those in crowds are left out; None if there is no other.
        """
        judged = self.judge_boxes()
        return compute_calibration(judged.scores, judged.right) if len(judged.scores) else None

    def judge_boxes(self) -> JudgedBoxes:
        """Say of all detections outside crowds whether they are right, at an IoU of 0.5."""
        judged = [one for of_class in self._judged for one in of_class]
        scores, right = _judge_scores(judged)
        again = [one.again[~one.ignored[0]] for one in judged]
        duplicates = np.concatenate([np.zeros(0, dtype=np.bool_), *again])
        return JudgedBoxes(scores, right, duplicates, objects=int(self.objects.sum()), pictures=self.num_pictures)

    def estimate(self, repeats: CountArray) -> DoubleArray:
        """[R, P] how often each picture is in a sample, to the mean AP [R] of each sample at an IoU of 0.5.

        The mean runs over the classes that have objects in the sample; nan where none has. Copies of a picture tie:
        they are ranked detection by detection, each with its copies, not copy by copy.
        """
        objects = repeats @ np.stack(self._objects)
        precisions = np.zeros(objects.shape)
        for label in np.flatnonzero(objects.any(axis=0)).tolist():
            precisions[:, label] = _resampled_precision(self._judged[label], objects[:, label], repeats)
        return mean_over_present(precisions, objects > 0)

    def _check(self, labels: NDArray[np.int64], boxes: FloatArray) -> None:
        num_classes = self._num_classes
        if boxes.shape != (len(labels), 4):
            raise ValueError(f"boxes are {boxes.shape} for {len(labels)} labels; wanted {(len(labels), 4)}")
        if np.any((labels < 0) | (labels >= num_classes)):
            raise ValueError(f"labels are {labels.min()}..{labels.max()}; wanted 0..{num_classes - 1}")


def _judge(picture: int, boxes: DoubleArray, scores: DoubleArray, targets: DoubleArray, crowds: DoubleArray) -> _Judged:
    """Match greedily: from the best detection down, each takes the free object that it overlaps most."""
    thresholds = IOU_THRESHOLDS[:, None]
    overlaps = _overlaps(boxes, targets, over_crowd=False)
    in_crowd = _overlaps(boxes, crowds, over_crowd=True).max(axis=1, initial=0.0) >= thresholds
    matched = np.zeros((len(IOU_THRESHOLDS), len(boxes)), dtype=np.bool_)
    free = np.ones((len(IOU_THRESHOLDS), len(targets)), dtype=np.bool_)
    for detection in np.flatnonzero(overlaps.max(axis=1, initial=0.0) >= IOU_THRESHOLDS[0]).tolist():
        usable = np.where(free & (overlaps[detection] >= thresholds), overlaps[detection], -1.0)
        # pycocotools gives a tie to the later object, argmax to the earlier.
        chosen = len(targets) - 1 - usable[:, ::-1].argmax(axis=1)
        hit = np.flatnonzero(usable.max(axis=1) >= 0)
        matched[hit, detection] = True
        free[hit, chosen[hit]] = False
    # A detection on an object that it did not find came behind a better one.
    on_object = overlaps.max(axis=1, initial=0.0) >= IOU_THRESHOLDS[0]
    on_better = np.tril(_overlaps(boxes, boxes, over_crowd=False), -1).max(axis=1, initial=0.0) >= IOU_THRESHOLDS[0]
    again = ~matched[0] & (on_object | on_better)
    return _Judged(picture, scores, matched, in_crowd & ~matched, again)


def _judge_scores(judged: list[_Judged]) -> tuple[DoubleArray, BoolArray]:
    """[D] scores of all detections outside crowds, and [D] whether each found an object, at an IoU of 0.5."""
    counted = [~one.ignored[0] for one in judged]
    scores = [one.scores[those] for one, those in zip(judged, counted, strict=True)]
    right = [one.matched[0, those] for one, those in zip(judged, counted, strict=True)]
    return np.concatenate([np.zeros(0), *scores]), np.concatenate([np.zeros(0, dtype=np.bool_), *right])


def _overlaps(boxes: DoubleArray, regions: DoubleArray, *, over_crowd: bool) -> DoubleArray:
    """[D, 4] and [G, 4] xyxy to [D, G]: intersection over union, or over the detection's own area for crowds."""
    sides = np.minimum(boxes[:, None, 2:], regions[:, 2:]) - np.maximum(boxes[:, None, :2], regions[:, :2])
    shared = sides.clip(min=0.0).prod(axis=2)
    own = _areas(boxes)[:, None]
    whole = np.broadcast_to(own, shared.shape) if over_crowd else own + _areas(regions) - shared
    overlaps: DoubleArray = np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0)
    return overlaps


def _areas(boxes: DoubleArray) -> DoubleArray:
    areas: DoubleArray = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return areas


def _precision_at_recalls(judged: list[_Judged], objects: int) -> DoubleArray:
    """[T, 101] the best precision at each recall or beyond; 0 where it is never reached."""
    precision_at = np.zeros((len(IOU_THRESHOLDS), len(RECALLS)))
    if not judged:
        return precision_at
    order = np.argsort(-np.concatenate([one.scores for one in judged]), kind="stable")
    matched = np.concatenate([one.matched for one in judged], axis=1)[:, order]
    ignored = np.concatenate([one.ignored for one in judged], axis=1)[:, order]
    right, wrong = matched.cumsum(axis=1), (~matched & ~ignored).cumsum(axis=1)
    precision = right / np.maximum(right + wrong, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    for row, recall in enumerate(right / objects):
        reached = np.searchsorted(recall, RECALLS, side="left")
        inside = reached < len(recall)
        precision_at[row, inside] = envelope[row, reached[inside]]
    return precision_at


def _resampled_precision(judged: list[_Judged], objects: CountArray, repeats: CountArray) -> DoubleArray:
    """[R] what average precision would be at the first threshold, had each picture been counted so often.

    Args:
        judged: the detections of one class.
        objects: [R] objects of that class in each sample.
        repeats: [R, P] how often each picture is in a sample.
    """
    if not judged:
        return np.zeros(len(repeats))
    order = np.argsort(-np.concatenate([one.scores for one in judged]), kind="stable")
    matched = np.concatenate([one.matched[0] for one in judged])[order]
    ignored = np.concatenate([one.ignored[0] for one in judged])[order]
    pictures = np.repeat([one.picture for one in judged], [len(one.scores) for one in judged])[order]
    weights = repeats[:, pictures]
    # Recall rises at the matched detections only, and there precision has its peaks.
    right = weights[:, matched].cumsum(axis=1)
    wrong = (weights * ~(matched | ignored)).cumsum(axis=1)[:, matched]
    envelope = np.maximum.accumulate((right / np.maximum(right + wrong, 1))[:, ::-1], axis=1)[:, ::-1]
    recall = right / np.maximum(objects, 1)[:, None]
    reached = np.searchsorted(RECALLS, recall, side="right")  # how many of the recalls each one reaches
    newly_reached = np.diff(reached, axis=1, prepend=0)
    average: DoubleArray = (newly_reached * envelope).sum(axis=1) / len(RECALLS)
    return average
