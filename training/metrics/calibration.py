"""Whether a score of 0.8 is right in 8 of 10 cases: reliability in bins, and the maps that make it so."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.metrics.bootstrap import DoubleArray
from training.options.base import Frozen

NUM_BINS = 10

# Answers that are all right, or nearly, say that they might be surer, and not how much.
_TEMPERATURES = (0.25, 4.0)
# Probabilities are float32: no logit is beyond 16 but by rounding.
_EPSILON = 1e-7
# Of the weights, and of the mean loss: where Newton's method stops.
_SMALLEST_STEP = 1e-9

Defined: TypeAlias = tuple[float | None, ...]


class UncalibratedError(ValueError):
    """Answers from which no map of their scores can be found."""


class Calibration(Frozen):
    """Answers in bins of equal width over 0..1, by how sure they were; the lowest first.

    Attributes:
        counts: answers in each bin.
        scores: their mean score, 0..1; None in an empty bin.
        shares_right: the share of them that are right, 0..1; None in an empty bin.
        error: the difference of the two, averaged over the answers: the expected calibration error, 0..1.
    """

    counts: tuple[int, ...]
    scores: Defined
    shares_right: Defined
    error: float


def defined(values: Iterable[float]) -> Defined:
    """None in the place of nan, for which JSON has no word."""
    return tuple(None if math.isnan(value) else value for value in values)


def compute_calibration(scores: DoubleArray, right: NDArray[np.bool_], bins: int = NUM_BINS) -> Calibration:
    """Sort answers into bins and compare (Guo et al., arXiv:1706.04599, sec. 2).

    Args:
        scores: [N] 0..1; 0.3 lies in the bin from 0.2 to 0.3, as in that paper.
        right: [N] whether the answer is right.
        bins: how many.

    Raises:
        ValueError: there is no answer, the lengths differ, or a score is not within 0..1.
    """
    if not len(scores) or len(scores) != len(right):
        raise ValueError(f"there are {len(scores)} scores for {len(right)} answers; wanted as many, at least one")
    if not np.all((scores >= 0) & (scores <= 1 + 1e-6)):
        raise ValueError(f"scores are {scores.min()}..{scores.max()}; wanted 0..1")
    edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    places = np.searchsorted(edges, scores, side="left")
    counts = np.bincount(places, minlength=bins)
    sums = np.bincount(places, weights=scores, minlength=bins), np.bincount(places, weights=right, minlength=bins)
    mean, share = (np.divide(total, counts, out=np.full(bins, np.nan), where=counts > 0) for total in sums)
    return Calibration(
        counts=tuple(counts.tolist()),
        scores=defined(mean.tolist()),
        shares_right=defined(share.tolist()),
        error=float(np.abs(sums[0] - sums[1]).sum() / len(scores)),
    )


def fit_scores(scores: DoubleArray, right: NDArray[np.bool_]) -> tuple[float, float]:
    """Find the scale and the bias of logits that make scores the chance of being right (Platt scaling).

    Maximum likelihood of sigmoid(scale * logit + bias) with the targets of Platt 1999 ("Probabilistic outputs for
    support vector machines", sec. 2.2), by Newton's method with halved steps (Lin, Lin and Weng 2007, "A note on
    Platt's probabilistic outputs for support vector machines").

    Args:
        scores: [N] 0..1.
        right: [N] whether the answer is right.

    Returns:
        The scale, above 0, and the bias.

    Raises:
        UncalibratedError: all answers are right or none is, or those that score more are right less often.
    """
    many, few = len(right) - int(right.sum()), int(right.sum())
    if not (many and few):
        raise UncalibratedError(f"{few} of {len(right)} answers are right; wanted some, and some that are not")
    logits = _logit(scores)
    inputs = np.stack([logits, np.ones_like(logits)], axis=1)
    targets = np.where(right, (few + 1) / (few + 2), 1 / (many + 2))

    def loss_of(weights: DoubleArray) -> float:
        summed = inputs @ weights
        return float((np.logaddexp(0.0, summed) - targets * summed).sum())

    weights = np.array([1.0, 0.0])
    loss = loss_of(weights)
    for _ in range(100):
        chances = 1 / (1 + np.exp(-(inputs @ weights)))
        gradient = inputs.T @ (chances - targets)
        hessian = (inputs * (chances * (1 - chances))[:, None]).T @ inputs
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient)
        while loss_of(weights - step) > loss and np.abs(step).max() > _SMALLEST_STEP:
            step /= 2
        weights, before = weights - step, loss
        loss = loss_of(weights)
        if before - loss <= _SMALLEST_STEP * len(scores):
            break
    scale, bias = weights.tolist()
    if scale <= 0:
        raise UncalibratedError("answers that score more are right less often")
    return scale, bias


def fit_temperature(class_probs: DoubleArray, labels: NDArray[np.int64]) -> float:
    """Find what to divide logits by, so that the probability of a class is its chance (Guo et al., sec. 4.2).

    Maximum likelihood, by bisection, for it is convex in 1 / temperature; within 0.25..4.

    Args:
        class_probs: [N, C] softmax of the logits.
        labels: [N] true class ids.

    Raises:
        ValueError: there is no answer.
    """
    if not len(labels):
        raise ValueError("there are no answers; wanted at least one")
    logits = np.log(np.clip(class_probs, _EPSILON, None))
    true = logits[np.arange(len(labels)), labels]
    low, high = (1 / temperature for temperature in reversed(_TEMPERATURES))
    for _ in range(50):
        middle = (low + high) / 2
        scaled = np.exp(middle * (logits - logits.max(axis=1, keepdims=True)))
        expected = (scaled * logits).sum(axis=1) / scaled.sum(axis=1)
        # The derivative of the loss.
        low, high = (low, middle) if (expected - true).sum() > 0 else (middle, high)
    return float(1 / high)


def apply_scores(scores: DoubleArray, scale: float, bias: float) -> DoubleArray:
    """What `fit_scores` found, applied: [N] 0..1 to [N] 0..1."""
    chances: DoubleArray = 1 / (1 + np.exp(-(scale * _logit(scores) + bias)))
    return chances


def apply_temperature(class_probs: DoubleArray, temperature: float) -> DoubleArray:
    """What `fit_temperature` found, applied: [N, C] to [N, C], each row sums to 1."""
    powers = class_probs ** (1 / temperature)
    cooled: DoubleArray = powers / powers.sum(axis=1, keepdims=True)
    return cooled


def _logit(scores: DoubleArray) -> DoubleArray:
    clipped = np.clip(scores, _EPSILON, 1 - _EPSILON)
    logits: DoubleArray = np.log(clipped) - np.log1p(-clipped)
    return logits
