import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from service.pictures.imaging import FloatArray, UInt8Array
from tests.training.metrics.test_detection import Picture, measure_with_pycocotools, random_picture
from tests.training.metrics.test_segmentation import random_pairs
from training.metrics.bootstrap import CountArray, DoubleArray, Interval, bootstrap_interval, measure_each
from training.metrics.classification import Accuracy
from training.metrics.detection import AveragePrecision
from training.metrics.segmentation import ConfusionMatrix


def count_masks(pairs: Sequence[tuple[UInt8Array, UInt8Array]], num_classes: int) -> ConfusionMatrix:
    confusion = ConfusionMatrix(num_classes)
    for predicted, target in pairs:
        confusion.update(predicted, target)
    return confusion


def count_boxes(pictures: Sequence[Picture], num_classes: int) -> AveragePrecision:
    precision = AveragePrecision(num_classes)
    for picture in pictures:
        precision.update(**vars(picture))
    return precision


def count_classes(class_probs: FloatArray, labels: CountArray) -> Accuracy:
    accuracy = Accuracy(class_probs.shape[1])
    accuracy.update(class_probs, labels)
    return accuracy


def always_the_first(pictures: int) -> FloatArray:
    return np.array([[0.9, 0.1]] * pictures, dtype=np.float32)


def fifteen_of_twenty() -> Accuracy:
    """Twenty pictures, the first five of them wrong."""
    return count_classes(always_the_first(20), np.repeat([1, 0], [5, 15]))


def without_ties_within_a_picture(rng: np.random.Generator, picture: Picture) -> Picture:
    """A hundred scores, so that those of different pictures still tie."""
    scores = rng.permutation(np.arange(1, 101, dtype=np.float32) / 100)[: len(picture.boxes)]
    return replace(picture, scores=scores)


def draw_repeats(rng: np.random.Generator, pictures: int, samples: int = 8) -> CountArray:
    repeats = rng.integers(0, 4, size=(samples, pictures))
    assert (repeats == 0).any()
    return repeats


@pytest.mark.parametrize("seed", range(6))
def test_the_average_precision_of_a_sample_is_that_of_its_pictures_repeated(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = [random_picture(rng, 5, int(rng.integers(0, 30))) for _ in range(12)]
    pictures = [without_ties_within_a_picture(rng, picture) for picture in drawn]
    repeats = draw_repeats(rng, len(pictures))
    found = count_boxes(pictures, 5).estimate(repeats)
    for row, value in zip(repeats.tolist(), found, strict=True):
        repeated = [picture for picture, times in zip(pictures, row, strict=True) for _ in range(times)]
        assert value == pytest.approx(measure_with_pycocotools(repeated, 5).map_50, abs=1e-12)
        assert value == pytest.approx(count_boxes(repeated, 5).compute().map_50, abs=1e-12)


def test_each_picture_by_itself_has_the_metric_of_a_set_of_one() -> None:
    rng = np.random.default_rng(1)
    pictures = [random_picture(rng, 3, 4) for _ in range(130)]  # more than are estimated at once
    found = measure_each(count_boxes(pictures, 3))
    assert found.shape == (130,)
    for picture, value in zip(pictures, found.tolist(), strict=True):
        if len(picture.target_boxes):
            assert value == pytest.approx(count_boxes([picture], 3).compute().map_50, abs=1e-12)
        else:
            assert math.isnan(value)


def test_the_mean_iou_of_a_sample_is_that_of_its_pictures_repeated() -> None:
    pairs = random_pairs(7)
    repeats = draw_repeats(np.random.default_rng(0), len(pairs))
    found = count_masks(pairs, 7).estimate(repeats)
    for row, value in zip(repeats.tolist(), found, strict=True):
        repeated = [pair for pair, times in zip(pairs, row, strict=True) for _ in range(times)]
        assert value == pytest.approx(count_masks(repeated, 7).compute().mean_iou, abs=1e-12)


def test_the_accuracy_of_a_sample_is_that_of_its_pictures_repeated() -> None:
    rng = np.random.default_rng(0)
    class_probs, labels = rng.random((30, 3), dtype=np.float32), rng.integers(0, 3, size=30)
    repeats = draw_repeats(rng, 30)
    found = count_classes(class_probs, labels).estimate(repeats)
    for row, value in zip(repeats, found, strict=True):
        assert value == count_classes(class_probs.repeat(row, axis=0), labels.repeat(row)).compute().top_1


def test_each_picture_once_gives_the_metrics_of_the_split_also_where_scores_tie() -> None:
    rng = np.random.default_rng(3)
    boxes = count_boxes([random_picture(rng, 5, 20) for _ in range(12)], 5)
    masks = count_masks(random_pairs(7), 7)
    accuracy = fifteen_of_twenty()
    assert boxes.estimate(np.ones((1, 12), dtype=np.int64)) == pytest.approx(boxes.compute().map_50, abs=1e-12)
    assert masks.estimate(np.ones((1, 5), dtype=np.int64)) == pytest.approx(masks.compute().mean_iou, abs=1e-12)
    assert accuracy.estimate(np.ones((1, 20), dtype=np.int64)) == 15 / 20


def test_classes_without_ground_truth_in_a_sample_have_no_part_in_its_mean() -> None:
    # The first picture has class 0, all right; the second class 1, half of it taken for class 0.
    zero, one = np.zeros((1, 4), dtype=np.uint8), np.ones((1, 4), dtype=np.uint8)
    masks = count_masks([(zero, zero), (np.array([[1, 1, 0, 0]], dtype=np.uint8), one)], 3)
    repeats = np.array([[2, 0], [0, 2], [1, 1]])
    np.testing.assert_allclose(masks.estimate(repeats), [1, 1 / 2, (4 / 6 + 1 / 2) / 2])

    box, first, second = np.array([[0, 0, 9, 9]], dtype=np.float32), np.array([0]), np.array([1])
    found = Picture(box, np.ones(1, np.float32), first, target_boxes=box, target_labels=first)
    missed = Picture(box, np.ones(1, np.float32), first, target_boxes=box, target_labels=second)
    # Where both are drawn, the detection in the second picture is a wrong one, as good as the right one before it.
    np.testing.assert_allclose(count_boxes([found, missed], 3).estimate(repeats), [1, 0, 1 / 2])


def test_a_sample_without_ground_truth_has_no_estimate_and_no_part_in_the_interval() -> None:
    box, label = np.array([[0, 0, 9, 9]], dtype=np.float32), np.array([0])
    boxes = count_boxes([Picture(box, np.ones(1, np.float32), label, box, label), Picture()], 2)
    np.testing.assert_array_equal(boxes.estimate(np.array([[0, 2], [1, 1]])), [np.nan, 1])
    assert bootstrap_interval(boxes, rng=np.random.default_rng(0)) == Interval(1.0, 1.0)


def test_the_interval_of_the_accuracy_is_that_of_a_binomial_count() -> None:
    interval = bootstrap_interval(fifteen_of_twenty(), rng=np.random.default_rng(0), draws=20_000)
    shares = np.cumsum([math.comb(20, right) * 0.75**right * 0.25 ** (20 - right) for right in range(21)])
    assert interval.low == np.searchsorted(shares, 0.025) / 20
    assert interval.high == np.searchsorted(shares, 0.975) / 20


class Watched:
    """Three pictures; remembers what it was asked, and estimates the share of the first."""

    num_pictures = 3

    def __init__(self) -> None:
        self.asked: list[CountArray] = []

    def estimate(self, repeats: CountArray) -> DoubleArray:
        self.asked.append(repeats)
        shares: DoubleArray = repeats[:, 0] / 3
        return shares


def test_every_sample_has_as_many_pictures_as_the_split_and_the_generator_decides_which() -> None:
    counted = [Watched(), Watched(), Watched()]
    first, again, other = (
        bootstrap_interval(one, rng=np.random.default_rng(seed), draws=250)
        for one, seed in zip(counted, (1, 1, 2), strict=True)
    )
    asked = [np.concatenate(one.asked) for one in counted]
    assert asked[0].shape == (250, 3)
    assert (asked[0].sum(axis=1) == 3).all()
    assert asked[0].mean(axis=0) == pytest.approx([1, 1, 1], abs=0.2)
    np.testing.assert_array_equal(asked[0], asked[1])
    assert (asked[0] != asked[2]).any()
    assert first == again
    assert other.low <= other.high


def test_pictures_that_are_all_alike_leave_no_doubt() -> None:
    accuracy = count_classes(always_the_first(20), np.zeros(20, dtype=np.int64))
    assert bootstrap_interval(accuracy, rng=np.random.default_rng(0)) == Interval(1.0, 1.0)


def test_no_picture_and_no_ground_truth_are_refused() -> None:
    with pytest.raises(ValueError, match="no picture was counted"):
        bootstrap_interval(ConfusionMatrix(3), rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="none of 1000 samples has ground truth"):
        bootstrap_interval(count_boxes([Picture()], 3), rng=np.random.default_rng(0))


def test_a_thousand_samples_of_sixty_pictures_of_a_hundred_detections_are_quick() -> None:
    rng = np.random.default_rng(5)
    precision = count_boxes([random_picture(rng, 80, 100) for _ in range(60)], 80)
    start_s = time.perf_counter()
    interval = bootstrap_interval(precision, rng=rng)
    assert time.perf_counter() - start_s < 5
    assert 0 < interval.low < interval.high < 1
