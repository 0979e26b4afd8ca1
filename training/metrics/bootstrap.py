"""How far a metric would move with other pictures: percentile intervals over pictures drawn with replacement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

CountArray: TypeAlias = NDArray[np.int64]
DoubleArray: TypeAlias = NDArray[np.float64]

_PERCENTILES = (2.5, 97.5)
# Draws per call of `estimate`: its arrays grow with the draws times the detections of a class.
_DRAWS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Interval:
    """The middle 95 % of the estimates, both ends 0..1."""

    low: float
    high: float


class Resampled(Protocol):
    """Counted pictures that can be measured again with some of them left out and others repeated."""

    @property
    def num_pictures(self) -> int:
        """Pictures counted so far."""
        ...

    def estimate(self, repeats: CountArray) -> DoubleArray:
        """[R, P] how often each picture is in a sample, to the metric [R] of each sample, 0..1.

        A mean over classes runs over those that have ground truth in the sample; nan where none has.
        """
        ...


def bootstrap_interval(counted: Resampled, *, rng: np.random.Generator, draws: int = 1000) -> Interval:
    """Draw as many pictures as there are, with replacement, again and again (Efron and Tibshirani 1993, sec. 13.3).

    It tells what the choice of pictures contributes to the uncertainty, and nothing of what the training seed does.
    The interval need not lie around the point estimate: a class of one picture is missing from a third of the samples,
    whose mean then runs over the others, and repeated pictures raise average precision, the more the fewer objects a
    class has. So that of mean AP leans upward. Samples without any ground truth are left out.

    Args:
        counted: the pictures.
        rng: draws them.
        draws: samples; at least 1.

    Raises:
        ValueError: no picture was counted, or no sample has ground truth.
    """
    if counted.num_pictures < 1:
        raise ValueError("no picture was counted; wanted at least one")
    even = np.full(counted.num_pictures, 1 / counted.num_pictures)
    repeats = rng.multinomial(counted.num_pictures, even, size=draws)
    estimates = np.concatenate(
        [counted.estimate(repeats[start : start + _DRAWS_AT_ONCE]) for start in range(0, draws, _DRAWS_AT_ONCE)]
    )
    measured = estimates[~np.isnan(estimates)]
    if not measured.size:
        raise ValueError(f"none of {draws} samples has ground truth; draw more, or measure on more pictures")
    low, high = np.percentile(measured, _PERCENTILES)
    return Interval(float(low), float(high))


def measure_each(counted: Resampled) -> DoubleArray:
    """[P] the metric of each picture by itself, 0..1; nan for a picture without ground truth."""
    count = counted.num_pictures
    rows = (np.arange(start, min(start + _DRAWS_AT_ONCE, count)) for start in range(0, count, _DRAWS_AT_ONCE))
    alone = [counted.estimate((chosen[:, None] == np.arange(count)).astype(np.int64)) for chosen in rows]
    return np.concatenate(alone) if alone else np.zeros(0)


def mean_over_present(values: DoubleArray, present: NDArray[np.bool_]) -> DoubleArray:
    """[R, C] values of classes, to their mean [R] over the classes that are present; nan where none is."""
    counts = present.sum(axis=1)
    sums = np.where(present, values, 0.0).sum(axis=1)
    means: DoubleArray = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return means
