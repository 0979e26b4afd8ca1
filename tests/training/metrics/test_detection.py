import contextlib
import io
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from service.pictures.imaging import FloatArray
from tests.training.there import there
from training.data.datasets import DataSets, DetectionSample
from training.metrics.detection import AveragePrecision, DetectionMetrics


def no_boxes() -> FloatArray:
    return np.zeros((0, 4), dtype=np.float32)


def no_labels() -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Picture:
    """Arguments of one update."""

    boxes: FloatArray = field(default_factory=no_boxes)
    scores: FloatArray = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    labels: NDArray[np.int64] = field(default_factory=no_labels)
    target_boxes: FloatArray = field(default_factory=no_boxes)
    target_labels: NDArray[np.int64] = field(default_factory=no_labels)
    crowd_boxes: FloatArray = field(default_factory=no_boxes)
    crowd_labels: NDArray[np.int64] = field(default_factory=no_labels)


def measure(pictures: list[Picture], num_classes: int) -> DetectionMetrics:
    precision = AveragePrecision(num_classes)
    for picture in pictures:
        precision.update(**vars(picture))
    return precision.compute()


def measure_with_pycocotools(pictures: list[Picture], num_classes: int) -> DetectionMetrics:
    images = [{"id": number} for number in range(1, len(pictures) + 1)]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, picture in zip(images, pictures, strict=True):
        for crowd, boxes, labels in (
            (0, picture.target_boxes, picture.target_labels),
            (1, picture.crowd_boxes, picture.crowd_labels),
        ):
            for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
                row = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": label, "iscrowd": crowd}
                annotations.append({**row, "bbox": to_xywh(box), "area": (box[2] - box[0]) * (box[3] - box[1])})
        for box, score, label in zip(
            picture.boxes.tolist(), picture.scores.tolist(), picture.labels.tolist(), strict=True
        ):
            results.append({"image_id": image["id"], "category_id": label, "bbox": to_xywh(box), "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        categories = [{"id": label} for label in range(num_classes)]
        truth.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]  # [T, R, C]; all areas, 100 detections
    per_class = np.where(precision.min(axis=(0, 1)) < 0, np.nan, precision.mean(axis=(0, 1)))
    per_class_50 = np.where(precision[0].min(axis=0) < 0, np.nan, precision[0].mean(axis=0))
    return DetectionMetrics(
        map_50=precision[0][precision[0] > -1].mean(),
        map_50_95=precision[precision > -1].mean(),
        per_class_ap_50=tuple(per_class_50.tolist()),
        per_class_ap_50_95=tuple(per_class.tolist()),
    )


def to_xywh(box: list[float]) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def assert_same(found: DetectionMetrics, wanted: DetectionMetrics) -> None:
    assert found.map_50 == pytest.approx(wanted.map_50, abs=1e-12)
    assert found.map_50_95 == pytest.approx(wanted.map_50_95, abs=1e-12)
    np.testing.assert_allclose(found.per_class_ap_50, wanted.per_class_ap_50, atol=1e-12)
    np.testing.assert_allclose(found.per_class_ap_50_95, wanted.per_class_ap_50_95, atol=1e-12)


def random_boxes(rng: np.random.Generator, count: int) -> FloatArray:
    """Whole-numbered corners, so that overlaps can tie and can meet a threshold exactly."""
    corners = rng.integers(0, 60, size=(count, 2))
    return np.concatenate([corners, corners + rng.integers(4, 40, size=(count, 2))], axis=1).astype(np.float32)


def random_picture(rng: np.random.Generator, num_classes: int, detections: int) -> Picture:
    """Objects, crowds and detections that are jittered copies, doubles and inventions; scores tie often."""
    objects, crowds = int(rng.integers(0, 9)), int(rng.integers(0, 3))
    target_boxes, crowd_boxes = random_boxes(rng, objects), random_boxes(rng, crowds)
    target_labels = rng.integers(0, num_classes - 1, size=objects)
    boxes, labels = random_boxes(rng, detections), rng.integers(0, num_classes, size=detections)
    if objects:
        copied = rng.random(detections) < 0.6
        source = rng.integers(0, objects, size=detections)
        jitter = rng.integers(-2, 3, size=(detections, 4)) * np.array([1, 1, 0, 0])
        boxes = np.where(copied[:, None], target_boxes[source] + jitter, boxes).astype(np.float32)
        labels = np.where(copied, target_labels[source], labels)
    return Picture(
        boxes=boxes,
        scores=(rng.integers(1, 20, size=detections) / 20).astype(np.float32),
        labels=labels,
        target_boxes=target_boxes,
        target_labels=target_labels,
        crowd_boxes=crowd_boxes,
        crowd_labels=rng.integers(0, num_classes, size=crowds),
    )


@pytest.mark.parametrize("seed", range(12))
def test_average_precision_is_that_of_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pictures = [random_picture(rng, 5, int(rng.integers(0, 30))) for _ in range(12)]
    assert_same(measure(pictures, 5), measure_with_pycocotools(pictures, 5))


def test_average_precision_is_that_of_pycocotools_with_fractional_boxes() -> None:
    rng = np.random.default_rng(3)
    pictures = [random_picture(rng, 3, 20) for _ in range(20)]
    moved = [replace(p, boxes=p.boxes + rng.uniform(-0.9, 0.9, p.boxes.shape).astype(np.float32)) for p in pictures]
    assert_same(measure(moved, 3), measure_with_pycocotools(moved, 3))


def test_average_precision_is_that_of_pycocotools_with_more_than_100_detections() -> None:
    rng = np.random.default_rng(4)
    pictures = [random_picture(rng, 2, 250) for _ in range(3)]
    assert_same(measure(pictures, 2), measure_with_pycocotools(pictures, 2))


def test_detections_in_pictures_without_objects_count_against_the_class() -> None:
    box, label = np.array([[0, 0, 10, 10]], dtype=np.float32), np.array([0])
    right = Picture(box, np.array([0.5], dtype=np.float32), label, box, label)
    wrong = Picture(box, np.array([0.9], dtype=np.float32), label)
    found = measure([Picture(), wrong, right], 1)
    assert found.map_50 == pytest.approx(0.5)
    assert_same(found, measure_with_pycocotools([Picture(), wrong, right], 1))


def test_a_hand_worked_precision() -> None:
    targets = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], dtype=np.float32)
    # Right (IoU 1), wrong, right (IoU 0.6): precision 1 up to recall 0.5, then 2/3 up to recall 1.
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 30, 26]], dtype=np.float32)
    scores = np.array([0.9, 0.8, 0.7], dtype=np.float32)
    found = measure([Picture(boxes, scores, np.zeros(3, int), targets, np.zeros(2, int))], 1)
    assert found.map_50 == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    # The third is right at 0.50, 0.55 and 0.60 only; beyond, recall ends at 0.5.
    assert found.map_50_95 == pytest.approx((3 * found.map_50 + 7 * 51 / 101) / 10)


def test_curves_and_calibration_of_the_same_by_hand() -> None:
    targets = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], dtype=np.float32)
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 30, 26], [80, 80, 90, 90]], dtype=np.float32)
    scores = np.array([0.95, 0.85, 0.82, 0.05], dtype=np.float32)
    crowd = np.array([[79, 79, 95, 95]], dtype=np.float32)
    precision = AveragePrecision(2)
    precision.update(
        boxes=boxes,
        scores=scores,
        labels=np.zeros(4, int),
        target_boxes=targets,
        target_labels=np.zeros(2, int),
        crowd_boxes=crowd,
        crowd_labels=np.zeros(1, int),
    )
    curves = precision.curves()
    assert curves.shape == (2, 10, 101)
    np.testing.assert_allclose(curves[0, 0], [1.0] * 51 + [2 / 3] * 50)
    np.testing.assert_allclose(curves[0, 9], [1.0] * 51 + [0.0] * 50)
    assert np.isnan(curves[1]).all()
    assert precision.objects.tolist() == [2, 0]
    # Of the two best one finds an object; the third, which finds the other, comes too late.
    assert precision.found_in_each().tolist() == [0.5]
    found = precision.calibrate()
    assert found is not None
    assert found.counts == (0,) * 8 + (2, 1)  # the one in the crowd does not count
    assert found.shares_right[8:] == (0.5, 1.0)
    assert found.error == pytest.approx((abs(0.85 + 0.82 - 1) + 0.05) / 3)


def test_a_picture_in_which_nothing_is_to_be_found_or_was_found() -> None:
    box, label = np.array([[0, 0, 9, 9]], dtype=np.float32), np.zeros(1, int)
    pictures = [Picture(), Picture(target_boxes=box, target_labels=label), Picture(box, np.ones(1, np.float32), label)]
    precision = AveragePrecision(1)
    for picture in [*pictures, replace(pictures[2], target_boxes=box, target_labels=label)]:
        precision.update(**vars(picture))
    np.testing.assert_equal(precision.found_in_each(), [np.nan, 0.0, np.nan, 1.0])


def test_where_nothing_was_detected_nothing_can_be_calibrated() -> None:
    precision = AveragePrecision(1)
    precision.update(**vars(Picture(target_boxes=np.array([[0, 0, 9, 9]], np.float32), target_labels=np.zeros(1, int))))
    assert precision.calibrate() is None


def test_a_second_detection_of_the_same_object_is_wrong() -> None:
    box = np.array([[0, 0, 10, 10]], dtype=np.float32)
    twice = Picture(
        box.repeat(2, axis=0), np.array([0.9, 0.8], dtype=np.float32), np.zeros(2, int), box, np.zeros(1, int)
    )
    other = replace(twice, boxes=box, scores=np.array([0.7], dtype=np.float32), labels=np.zeros(1, int))
    assert measure([twice, other], 1).map_50 == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)


def test_of_two_objects_overlapped_equally_the_later_is_taken() -> None:
    # The first detection lies midway; only if it takes the second object, the first is left for the detection on it.
    targets = np.array([[0, 0, 10, 10], [2, 0, 12, 10]], dtype=np.float32)
    boxes = np.array([[1, 0, 11, 10], [0, 0, 10, 10]], dtype=np.float32)
    picture = Picture(boxes, np.array([0.9, 0.8], dtype=np.float32), np.zeros(2, int), targets, np.zeros(2, int))
    swapped = replace(picture, target_boxes=targets[::-1])
    assert measure([picture], 1).map_50_95 > measure([swapped], 1).map_50_95
    for pictures in ([picture], [swapped]):
        assert_same(measure(pictures, 1), measure_with_pycocotools(pictures, 1))


def test_an_inverted_detection_is_wrong() -> None:
    box = np.array([[0, 0, 10, 10]], dtype=np.float32)
    boxes = np.concatenate([box[:, [2, 1, 0, 3]], box])
    picture = Picture(boxes, np.array([0.9, 0.8], dtype=np.float32), np.zeros(2, int), box, np.zeros(1, int))
    assert measure([picture], 1).map_50 == pytest.approx(0.5)


def test_detections_in_a_crowd_are_neither_right_nor_wrong() -> None:
    box, crowd = np.array([[0, 0, 10, 10]], dtype=np.float32), np.array([[20, 0, 90, 90]], dtype=np.float32)
    inside = np.array([[30, 30, 35, 35], [40, 40, 45, 45], [0, 0, 10, 10]], dtype=np.float32)
    scores = np.array([0.9, 0.8, 0.7], dtype=np.float32)
    picture = Picture(inside, scores, np.zeros(3, int), box, np.zeros(1, int), crowd, np.zeros(1, int))
    assert measure([picture], 1).map_50 == 1.0
    assert measure([replace(picture, crowd_boxes=no_boxes(), crowd_labels=no_labels())], 1).map_50 < 0.5


def test_duplicates_show_what_a_better_box_shows() -> None:
    boxes = [
        ([0, 0, 10, 10], 0, 0.9),  # right
        ([0, 0, 10, 8], 0, 0.8),  # the same object again
        ([0, 0, 10, 3], 0, 0.7),  # hardly on it: wrong, and something else
        ([0, 0, 10, 10], 1, 0.6),  # of another class: wrong
        ([50, 50, 60, 60], 0, 0.5),  # where nothing is
        ([50, 50, 60, 61], 0, 0.4),  # and again
        ([80, 80, 85, 85], 0, 0.3),  # in a crowd, twice: neither right nor wrong
        ([80, 80, 85, 85], 0, 0.2),
    ]
    corners, labels, scores = zip(*reversed(boxes), strict=True)
    precision = AveragePrecision(2)
    precision.update(
        boxes=np.array(corners, dtype=np.float32),
        scores=np.array(scores, dtype=np.float32),
        labels=np.array(labels),
        target_boxes=np.array([[0, 0, 10, 10], [20, 20, 30, 30]], dtype=np.float32),
        target_labels=np.array([0, 1]),
        crowd_boxes=np.array([[70, 70, 100, 100]], dtype=np.float32),
        crowd_labels=np.array([0]),
    )
    judged = precision.judge_boxes()
    order = np.argsort(-judged.scores)
    np.testing.assert_allclose(judged.scores[order], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], rtol=1e-6)
    assert judged.right[order].tolist() == [True, False, False, False, False, False]
    assert judged.duplicates[order].tolist() == [False, True, False, False, False, True]
    assert (judged.objects, judged.pictures) == (2, 1)


def test_classes_without_objects_have_no_precision_and_no_part_in_the_mean() -> None:
    box = np.array([[0, 0, 10, 10]], dtype=np.float32)
    picture = Picture(
        boxes=box.repeat(2, axis=0),
        scores=np.array([0.9, 0.8], dtype=np.float32),
        labels=np.array([1, 2]),
        target_boxes=box,
        target_labels=np.array([1]),
        crowd_boxes=box,
        crowd_labels=np.array([3]),
    )
    found = measure([picture], 5)
    assert found.map_50 == 1.0
    np.testing.assert_array_equal(found.per_class_ap_50, [np.nan, 1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(found.per_class_ap_50_95, [np.nan, 1, np.nan, np.nan, np.nan])


def test_a_class_nobody_detects_scores_zero() -> None:
    box = np.array([[0, 0, 10, 10]], dtype=np.float32)
    assert measure([Picture(target_boxes=box, target_labels=np.array([0]))], 1).map_50_95 == 0.0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scores": np.zeros(2, np.float32)}, "2 scores for 1 boxes"),
        ({"labels": np.array([0, 0])}, r"boxes are \(1, 4\) for 2 labels"),
        ({"labels": np.array([3])}, r"labels are 3\.\.3; wanted 0\.\.2"),
        ({"target_labels": np.array([-1])}, r"labels are -1\.\.-1; wanted 0\.\.2"),
        ({"crowd_labels": np.array([0])}, r"boxes are \(0, 4\) for 1 labels"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], sentence: str) -> None:
    box, label = np.array([[0, 0, 10, 10]], dtype=np.float32), np.array([0])
    with pytest.raises(ValueError, match=sentence):
        measure([replace(Picture(box, np.ones(1, np.float32), label, box, label), **change)], 3)


def test_nothing_to_find_is_refused() -> None:
    with pytest.raises(ValueError, match="no picture has an object to find"):
        measure([Picture()], 3)


def test_sixty_pictures_of_a_hundred_detections_and_eighty_classes_are_quick() -> None:
    rng = np.random.default_rng(5)
    pictures = [random_picture(rng, 80, 100) for _ in range(60)]
    start_s = time.perf_counter()
    measure(pictures, 80)
    assert time.perf_counter() - start_s < 2


def as_predicted(samples: tuple[DetectionSample, ...]) -> list[Picture]:
    """The ground truth, predicted with certainty."""
    return [
        Picture(s.boxes, np.ones(len(s.boxes), np.float32), s.labels, s.boxes, s.labels, s.crowd_boxes, s.crowd_labels)
        for s in samples
    ]


def test_the_real_ground_truth_scores_one(mini_sets: DataSets) -> None:
    found = measure(as_predicted(there(mini_sets.detection).val), 80)
    assert (found.map_50, found.map_50_95) == (1.0, 1.0)
    assert np.count_nonzero(~np.isnan(found.per_class_ap_50)) == 63


def test_shuffled_labels_score_nearly_nothing(mini_sets: DataSets) -> None:
    pictures = as_predicted(there(mini_sets.detection).val)
    shuffled = [replace(picture, labels=(picture.labels + 7) % 80) for picture in pictures]
    assert measure(shuffled, 80).map_50 < 0.02


def test_xywh_taken_for_xyxy_scores_low(mini_sets: DataSets) -> None:
    pictures = as_predicted(there(mini_sets.detection).val)
    mistaken = [
        replace(p, boxes=np.concatenate([p.boxes[:, :2], p.boxes[:, 2:] - p.boxes[:, :2]], 1)) for p in pictures
    ]
    assert measure(mistaken, 80).map_50 < 0.2
