import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassJaccardIndex

from service.pictures.imaging import UInt8Array
from tests.training.there import there
from training.data.datasets import DataSets, read_mask
from training.data.taxonomy import VOID
from training.metrics.segmentation import ConfusionMatrix, SegmentationMetrics, miou_eps_per_image


def mask(*rows: list[int]) -> UInt8Array:
    return np.array(rows, dtype=np.uint8)


def measure(*pairs: tuple[UInt8Array, UInt8Array], num_classes: int = 3) -> SegmentationMetrics:
    confusion = ConfusionMatrix(num_classes)
    for predicted, target in pairs:
        confusion.update(predicted, target)
    return confusion.compute()


def random_pairs(num_classes: int) -> list[tuple[UInt8Array, UInt8Array]]:
    """Five pictures of different sizes, about half of their pixels right, a tenth void."""
    rng = np.random.default_rng(1)
    pairs = []
    for height, width in rng.integers(5, 40, size=(5, 2)):
        target = rng.integers(0, num_classes, (height, width), dtype=np.uint8)
        guess = rng.integers(0, num_classes, (height, width), dtype=np.uint8)
        predicted = np.where(rng.random((height, width)) < 0.5, target, guess)
        pairs.append((predicted, np.where(rng.random((height, width)) < 0.1, np.uint8(VOID), target)))
    return pairs


def test_hand_worked_values() -> None:
    found = measure((mask([0, 0, 1], [0, 1, 2]), mask([0, 0, 1], [1, 1, 2])))
    # Class 0: 2 of 3; class 1: 2 of 3; class 2: 1 of 1.
    np.testing.assert_allclose(found.per_class_iou, [2 / 3, 2 / 3, 1])
    assert found.mean_iou == pytest.approx(7 / 9)
    assert found.foreground_mean_iou == pytest.approx(5 / 6)
    assert found.pixel_accuracy == pytest.approx(5 / 6)


def test_void_pixels_do_not_count_as_background_or_at_all() -> None:
    found = measure((mask([0, 1, 2, 0]), mask([0, 1, VOID, VOID])))
    assert (found.mean_iou, found.pixel_accuracy) == (1.0, 1.0)


def test_a_class_without_ground_truth_counts_neither_as_one_nor_as_zero() -> None:
    found = measure((mask([0, 0, 1]), mask([0, 1, 1])))
    assert found.mean_iou == pytest.approx(1 / 2)
    assert np.isnan(found.per_class_iou[2])


def test_a_class_predicted_without_ground_truth_hurts_the_class_it_was_taken_from() -> None:
    found = measure((mask([0, 2, 1, 1]), mask([0, 0, 1, 1])))
    np.testing.assert_allclose(found.per_class_iou, [1 / 2, 1, np.nan])
    assert found.mean_iou == pytest.approx(3 / 4)


def test_pixels_are_summed_over_pictures_before_dividing() -> None:
    large, small = np.zeros((9, 10), dtype=np.uint8), np.ones((1, 10), dtype=np.uint8)
    found = measure((large, large), (np.zeros_like(small), small), num_classes=2)
    assert found.mean_iou == pytest.approx((90 / 100 + 0) / 2)


def test_foreground_mean_is_nan_when_there_is_only_background() -> None:
    background = np.zeros((2, 2), dtype=np.uint8)
    assert np.isnan(measure((background, background)).foreground_mean_iou)


def test_iou_and_accuracy_are_those_of_torchmetrics() -> None:
    jaccard = MulticlassJaccardIndex(num_classes=7, average=None, ignore_index=VOID)
    accuracy = MulticlassAccuracy(num_classes=7, average="micro", ignore_index=VOID)
    matrix = MulticlassConfusionMatrix(num_classes=7, ignore_index=VOID)
    confusion = ConfusionMatrix(7)
    for predicted, target in random_pairs(7):
        confusion.update(predicted, target)
        jaccard.update(torch.from_numpy(predicted).long(), torch.from_numpy(target).long())
        accuracy.update(torch.from_numpy(predicted).long(), torch.from_numpy(target).long())
        matrix.update(torch.from_numpy(predicted).long(), torch.from_numpy(target).long())
    found = confusion.compute()
    np.testing.assert_array_equal(confusion.counts, matrix.compute().numpy())
    # torchmetrics divides in float32.
    np.testing.assert_allclose(found.per_class_iou, jaccard.compute().numpy(), rtol=1e-6)
    assert found.mean_iou == pytest.approx(jaccard.compute().mean().item(), rel=1e-6)
    assert found.pixel_accuracy == pytest.approx(accuracy.compute().item(), rel=1e-6)


@pytest.mark.parametrize(
    ("predicted", "target", "sentence"),
    [
        (mask([0, 3]), mask([0, 1]), r"holds the value 3; wanted classes 0\.\.2"),
        (mask([0, 1]), mask([0, 3]), r"holds the value 3; wanted classes 0\.\.2"),
        (mask([0, 1]), mask([0, 1, 2]), r"is \(1, 2\), the ground truth \(1, 3\)"),
    ],
)
def test_masks_that_do_not_fit_are_refused(predicted: UInt8Array, target: UInt8Array, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        measure((predicted, target))


def test_nothing_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="no labelled pixel was counted"):
        ConfusionMatrix(3).compute()


def test_the_metric_of_the_report_counts_absent_classes_as_one() -> None:
    # Background 2 of 3, class 1 none of 1, nineteen absent classes.
    assert miou_eps_per_image(mask([0, 0, 0]), mask([0, 0, 1]), 21) == pytest.approx((2 / 3 + 0 + 19) / 21, abs=1e-6)


def test_the_metric_of_the_report_leaves_void_out() -> None:
    assert miou_eps_per_image(mask([0, 5]), mask([0, VOID]), 21) == pytest.approx(1.0)


def test_eps_is_added_to_intersection_and_union() -> None:
    assert miou_eps_per_image(mask([0, 0]), mask([0, 1]), 2, eps=1.0) == pytest.approx((2 / 3 + 1 / 2) / 2)


def val_masks(mini_sets: DataSets) -> list[UInt8Array]:
    return [read_mask(sample.mask, 21) for sample in there(mini_sets.segmentation).val]


def test_all_background_scores_a_thirtieth_on_the_real_val_masks(mini_sets: DataSets) -> None:
    found = measure(*((np.zeros_like(target), target) for target in val_masks(mini_sets)), num_classes=21)
    assert found.mean_iou == pytest.approx(0.03428, abs=1e-5)
    assert found.pixel_accuracy == pytest.approx(0.71981, abs=1e-5)
    assert found.foreground_mean_iou == 0.0


def test_all_background_scores_nine_tenths_in_the_metric_of_the_report(mini_sets: DataSets) -> None:
    scores = [miou_eps_per_image(np.zeros_like(target), target, 21) for target in val_masks(mini_sets)]
    assert np.mean(scores) == pytest.approx(0.91868, abs=1e-5)


def test_the_real_ground_truth_scores_one(mini_sets: DataSets) -> None:
    # What is predicted on void does not matter.
    found = measure(*((np.where(t == VOID, 3, t).astype(np.uint8), t) for t in val_masks(mini_sets)), num_classes=21)
    assert found == SegmentationMetrics(1.0, 1.0, 1.0, (1.0,) * 21)
