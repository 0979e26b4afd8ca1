"""Whether a score of 0.8 is right in 8 of 10 cases: reliability in bins, and the expected calibration error."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.metrics.bootstrap import DoubleArray
from training.options.base import Frozen

NUM_BINS = 10

Defined: TypeAlias = tuple[float | None, ...]


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
