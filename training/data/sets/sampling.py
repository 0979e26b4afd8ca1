"""How often each picture of a task is drawn in an epoch: by its source's weight and by its rarest class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.data.datasets import ClassificationSample, DetectionSample, SegmentationSample, read_mask
from training.data.layouts.outlines import Outlines
from training.data.taxonomy import VOID

Sample: TypeAlias = SegmentationSample | DetectionSample | ClassificationSample
Weights: TypeAlias = NDArray[np.float64]


def find_shares(
    samples: Sequence[Sample], weights: Sequence[float], *, threshold: float | None, num_classes: int
) -> Weights | None:
    """The share of an epoch that each picture is to have.

    Args:
        samples: of one task's train.
        weights: of their sources, as `Split` has them.
        threshold: see `count_repeats`; None where classes do not count.
        num_classes: of the task.

    Returns:
        [n] that sum to 1; None where all pictures are alike.
    """
    repeats = np.array(weights or [1.0] * len(samples), dtype=np.float64)
    if threshold is not None:
        repeats *= count_repeats([find_classes(sample, num_classes) for sample in samples], threshold)
    return None if (repeats == repeats[0]).all() else repeats / repeats.sum()


def count_repeats(classes: Sequence[NDArray[np.int64]], threshold: float) -> Weights:
    """Repeat-factor sampling (LVIS, arXiv:1908.03195, sec. 4): a picture comes as often as its rarest class asks for.

    Args:
        classes: that each picture shows, each once.
        threshold: share of the pictures, 0..1. A class that a share f of them shows, less than this, is repeated
            sqrt(threshold / f) times, the others once.

    Returns:
        [n] factors >= 1; 1 for a picture that shows nothing.
    """
    shown = np.bincount(np.concatenate(classes))
    factors = np.sqrt(threshold * len(classes) / np.maximum(shown, 1)).clip(min=1)
    return np.array([factors[own].max(initial=1) for own in classes], dtype=np.float64)


def find_classes(sample: Sample, num_classes: int) -> NDArray[np.int64]:
    """The classes that a picture shows, each once; of a mask all but background and void. Reads the mask alone."""
    if isinstance(sample, DetectionSample):
        return np.unique(sample.labels)
    if isinstance(sample, ClassificationSample):
        return np.array([sample.label])
    shown: NDArray[np.int64]
    if isinstance(sample.mask, Outlines):
        shown = np.unique(np.array([label for label, _ in sample.mask.shapes], dtype=np.int64))
    else:
        counts = np.bincount(read_mask(sample.mask, num_classes, sample.values).ravel(), minlength=VOID + 1)
        shown = np.flatnonzero(counts)
    return np.setdiff1d(shown, [0, VOID])


def resample(rng: np.random.Generator, shares: Weights) -> NDArray[np.int64]:
    """As many draws as there are pictures, in an order without rule: each picture comes its share of them, rounded.

    Systematic resampling (Kitagawa 1996) of the pictures in a random order: with an expected number of 1.3 draws it is
    one or two of them, never none or four, as independent draws would have it.

    Args:
        rng: draws order and rounding.
        shares: [n] that sum to 1, of each picture.

    Returns:
        [n] pictures.
    """
    count = len(shares)
    order = rng.permutation(count)
    ends = np.cumsum(shares[order]) * count
    ends[-1] = count  # whatever rounding has made of it
    copies = np.diff(np.floor(ends + rng.random()), prepend=0).astype(np.int64)
    drawn: NDArray[np.int64] = rng.permutation(np.repeat(order, copies))
    return drawn
