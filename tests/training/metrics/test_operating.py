import numpy as np
import pytest

from training.metrics.calibration import UncalibratedError
from training.metrics.operating import JudgedBoxes, find_best_threshold, measure_at

# Of 4 objects in 2 pictures 2 are found; one of them twice.
JUDGED = JudgedBoxes(
    scores=np.array([0.9, 0.2, 0.6, 0.4, 0.1]),
    right=np.array([True, False, True, False, False]),
    duplicates=np.array([False, False, False, True, False]),
    objects=4,
    pictures=2,
)


def test_an_operating_point_by_hand() -> None:
    point = measure_at(JUDGED, 0.4)
    assert (point.precision, point.recall) == (2 / 3, 2 / 4)
    assert point.f1 == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))
    assert (point.boxes_per_picture, point.duplicates_per_picture) == (3 / 2, 1 / 2)
    assert measure_at(JUDGED, 0.41).duplicates_per_picture == 0


def test_where_no_box_is_left_nothing_is_right() -> None:
    point = measure_at(JUDGED, 0.95)
    assert (point.precision, point.recall, point.f1, point.boxes_per_picture) == (0, 0, 0, 0)


def test_the_best_threshold_is_the_highest_that_keeps_what_is_right() -> None:
    assert find_best_threshold(JUDGED) == 0.6
    points = [measure_at(JUDGED, hundredths / 100).f1 for hundredths in range(1, 100)]
    assert measure_at(JUDGED, 0.6).f1 == max(points)


def test_without_a_right_box_there_is_no_best_threshold() -> None:
    wrong = JudgedBoxes(np.array([0.5]), np.array([False]), np.array([False]), objects=3, pictures=1)
    with pytest.raises(UncalibratedError, match="none of 1 boxes is right"):
        find_best_threshold(wrong)


def test_without_pictures_there_is_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="no picture"):
        measure_at(JudgedBoxes(np.zeros(0), np.zeros(0, bool), np.zeros(0, bool), objects=0, pictures=0), 0.5)
