import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassConfusionMatrix

from service.pictures.imaging import FloatArray
from training.metrics.classification import Accuracy, ClassificationMetrics


def measure(class_probs: FloatArray, labels: list[int]) -> ClassificationMetrics:
    accuracy = Accuracy(class_probs.shape[1])
    accuracy.update(class_probs, np.array(labels))
    return accuracy.compute()


def test_hand_worked_values() -> None:
    probs = np.array([[0.3, 0.2, 0.1, 0.15, 0.14, 0.11]] * 4, dtype=np.float32)
    found = measure(probs, [0, 1, 2, 1])
    # Class 2 comes last of six, class 1 second.
    assert (found.top_1, found.top_5) == (1 / 4, 3 / 4)
    np.testing.assert_array_equal(found.per_class_accuracy, [1, 0, 0, np.nan, np.nan, np.nan])


def test_ties_go_to_the_lower_id() -> None:
    probs = np.full((10, 10), 0.1, dtype=np.float32)
    found = measure(probs, list(range(10)))
    assert (found.top_1, found.top_5) == (1 / 10, 5 / 10)


def test_fewer_than_five_classes_are_all_among_the_first_five() -> None:
    assert measure(np.eye(3, dtype=np.float32), [1, 2, 0]) == ClassificationMetrics(0.0, 1.0, (0.0, 0.0, 0.0))


def test_pictures_are_summed_over_batches_before_dividing() -> None:
    accuracy = Accuracy(2)
    accuracy.update(np.array([[1, 0]] * 3, dtype=np.float32), np.array([0, 0, 0]))
    accuracy.update(np.array([[1, 0]], dtype=np.float32), np.array([1]))
    assert accuracy.compute().top_1 == 3 / 4


def test_accuracies_are_those_of_torchmetrics() -> None:
    rng = np.random.default_rng(2)
    probs, labels = rng.random((200, 10), dtype=np.float32), rng.integers(0, 10, size=200)
    found = measure(probs, labels.tolist())
    as_tensors = torch.from_numpy(probs), torch.from_numpy(labels)
    for top_k, ours in ((1, found.top_1), (5, found.top_5)):
        theirs = MulticlassAccuracy(num_classes=10, average="micro", top_k=top_k)(*as_tensors)
        assert ours == pytest.approx(theirs.item(), rel=1e-6)
    per_class = MulticlassAccuracy(num_classes=10, average=None)(*as_tensors)
    np.testing.assert_allclose(found.per_class_accuracy, per_class.numpy(), rtol=1e-6)


def test_confusion_and_calibration_are_those_of_torchmetrics() -> None:
    rng = np.random.default_rng(3)
    probs = rng.dirichlet(np.full(5, 0.3), size=300).astype(np.float32)
    labels = rng.integers(0, 5, size=300)
    accuracy = Accuracy(5)
    for start in (0, 100):  # in batches
        end = 100 if start == 0 else 300
        accuracy.update(probs[start:end], labels[start:end])
    as_tensors = torch.from_numpy(probs), torch.from_numpy(labels)
    np.testing.assert_array_equal(accuracy.confusion(), MulticlassConfusionMatrix(num_classes=5)(*as_tensors).numpy())
    theirs = MulticlassCalibrationError(num_classes=5, n_bins=10, norm="l1")(*as_tensors)
    assert accuracy.calibrate().error == pytest.approx(theirs.item(), abs=1e-5)


@pytest.mark.parametrize(
    ("shape", "labels", "sentence"),
    [
        ((2, 3), [0], r"class_probs are \(2, 3\); wanted \(1, 3\)"),
        ((1, 2), [0], r"class_probs are \(1, 2\); wanted \(1, 3\)"),
        ((2, 3), [0, 3], r"labels are 0\.\.3; wanted 0\.\.2"),
        ((1, 3), [-1], r"labels are -1\.\.-1; wanted 0\.\.2"),
    ],
)
def test_what_does_not_fit_is_refused(shape: tuple[int, int], labels: list[int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Accuracy(3).update(np.zeros(shape, dtype=np.float32), np.array(labels))


def test_nothing_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="no picture was counted"):
        Accuracy(3).compute()
