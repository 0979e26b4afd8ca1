import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.classification import BinaryCalibrationError

from training.metrics.bootstrap import DoubleArray
from training.metrics.calibration import (
    UncalibratedError,
    apply_scores,
    apply_temperature,
    compute_calibration,
    fit_scores,
    fit_temperature,
)


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


def draw_scores(scale: float, bias: float, count: int = 40_000) -> tuple[DoubleArray, NDArray[np.bool_]]:
    """Scores whose chance of being right is sigmoid(scale * logit + bias)."""
    rng = np.random.default_rng(0)
    scores = rng.beta(0.7, 3, count).clip(1e-4, 1 - 1e-4)
    chances = 1 / (1 + np.exp(-(scale * np.log(scores / (1 - scores)) + bias)))
    return scores, rng.random(count) < chances


def test_scores_become_chances() -> None:
    scores, right = draw_scores(1.7, -0.8)
    scale, bias = fit_scores(scores, right)
    assert (scale, bias) == pytest.approx((1.7, -0.8), abs=0.1)
    chances = apply_scores(scores, scale, bias)
    assert compute_calibration(scores, right).error > 0.05
    assert compute_calibration(chances, right).error < 0.01
    # A maximum of the likelihood: chances sum to what is right, but for Platt's targets, which are a hair off 0 and 1.
    assert chances.sum() == pytest.approx(right.sum(), abs=1)


def test_the_order_of_scores_stays() -> None:
    scores = np.linspace(0.001, 0.999, 100)
    assert (np.diff(apply_scores(scores, 2.5, -3.0)) > 0).all()
    np.testing.assert_allclose(apply_scores(scores, 1.0, 0.0), scores)


def test_scores_that_part_right_from_wrong_have_a_map_all_the_same() -> None:
    scale, bias = fit_scores(np.array([0.1, 0.2, 0.3, 0.8, 0.9]), np.array([False, False, False, True, True]))
    assert np.isfinite([scale, bias]).all()
    assert apply_scores(np.array([0.9]), scale, bias)[0] == pytest.approx(3 / 4, abs=0.1)  # Platt's target for 2 of 2


def test_scores_of_0_and_1_have_a_map_all_the_same() -> None:
    scale, bias = fit_scores(np.array([0.0, 0.0, 0.5, 1.0, 1.0]), np.array([False, True, False, True, True]))
    assert np.isfinite(apply_scores(np.array([0.0, 1.0]), scale, bias)).all()


@pytest.mark.parametrize(
    ("right", "sentence"),
    [
        ([False] * 4, "0 of 4 answers are right"),
        ([True] * 4, "4 of 4 answers are right"),
        ([True, True, False, False], "score more are right less"),
    ],
)
def test_scores_that_say_nothing_are_refused(right: list[bool], sentence: str) -> None:
    with pytest.raises(UncalibratedError, match=sentence):
        fit_scores(np.array([0.1, 0.2, 0.7, 0.9]), np.array(right))


def test_a_temperature_is_found_again() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 5))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (chances.cumsum(axis=1) < rng.random((len(chances), 1))).sum(axis=1)
    too_sure = np.exp(1.6 * logits) / np.exp(1.6 * logits).sum(axis=1, keepdims=True)
    temperature = fit_temperature(too_sure, labels)
    assert temperature == pytest.approx(1.6, abs=0.05)
    np.testing.assert_allclose(apply_temperature(too_sure, 1.6), chances)
    cooled = apply_temperature(too_sure, temperature)
    assert compute_calibration(cooled.max(axis=1), cooled.argmax(axis=1) == labels).error < 0.02


@pytest.mark.parametrize(("label", "temperature"), [(0, 0.25), (1, 4.0)])
def test_a_temperature_has_bounds(label: int, temperature: float) -> None:
    assert fit_temperature(np.array([[0.7, 0.2, 0.1]] * 3), np.array([label] * 3)) == pytest.approx(temperature)


def test_no_answers_have_no_temperature() -> None:
    with pytest.raises(ValueError, match="at least one"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))
