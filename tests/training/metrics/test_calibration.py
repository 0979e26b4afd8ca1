import numpy as np
import pytest
import torch
from torchmetrics.classification import BinaryCalibrationError

from training.metrics.calibration import compute_calibration


def test_calibration_by_hand() -> None:
    found = compute_calibration(np.array([0.2, 0.4, 0.9, 0.7, 0.6]), np.array([False, True, True, True, False]), bins=2)
    assert found.counts == (2, 3)
    assert found.scores == pytest.approx((0.3, 2.2 / 3))
    assert found.shares_right == pytest.approx((1 / 2, 2 / 3))
    assert found.error == pytest.approx((2 * 0.2 + 3 * (2.2 / 3 - 2 / 3)) / 5)


def test_a_score_on_an_edge_lies_in_the_lower_bin_and_the_ends_in_the_outer_ones() -> None:
    assert compute_calibration(np.array([0.0, 0.5, 1.0]), np.array([True, True, True]), bins=2).counts == (2, 1)


def test_an_empty_bin_has_no_numbers_and_no_say() -> None:
    found = compute_calibration(np.array([0.9]), np.array([True]), bins=2)
    assert found.scores[0] is None
    assert found.shares_right[0] is None
    assert found.error == pytest.approx(0.1)


def test_the_error_is_that_of_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    scores, right = rng.random(500), rng.random(500) < 0.4
    theirs = BinaryCalibrationError(n_bins=10, norm="l1")(torch.from_numpy(scores), torch.from_numpy(right).long())
    assert compute_calibration(scores, right).error == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize(("scores", "right"), [([], []), ([0.5], [True, False]), ([1.5], [True]), ([-0.1], [True])])
def test_what_is_no_list_of_scores_is_refused(scores: list[float], right: list[bool]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        compute_calibration(np.array(scores), np.array(right, dtype=bool))
