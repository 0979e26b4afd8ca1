"""What is said of whole pictures: which of a few classes they show, though not where."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.data.datasets import DetectionSample


def heed_image_labels(
    sample: DetectionSample, shown: Collection[int], complete: Collection[int], num_classes: int
) -> DetectionSample:
    """Take what a picture shows, and what it does not, into its boxes.

    Where it shows none of a class, all boxes of that class are wrong, and all of it is background; unsure ones are
    left out like others. Where it shows one that no box is of, nobody knows where: there the class is unknown.

    Args:
        sample: of the picture.
        shown: classes that it shows.
        complete: classes that it shows only if they are among those.
        num_classes: of all.
    """
    denied = [label for label in complete if label not in shown]

    def keep(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        return ~np.isin(labels, denied)

    objects, crowds, unsure = keep(sample.labels), keep(sample.crowd_labels), keep(sample.ignored_labels)
    boxed = {*sample.labels.tolist(), *sample.crowd_labels.tolist(), *sample.ignored_labels.tolist()}
    lost = {label for label in complete if label in shown and label not in boxed}
    known = range(num_classes) if sample.known is None else sample.known
    return replace(
        sample,
        boxes=sample.boxes[objects],
        labels=sample.labels[objects],
        scores=None if sample.scores is None else sample.scores[objects],
        crowd_boxes=sample.crowd_boxes[crowds],
        crowd_labels=sample.crowd_labels[crowds],
        ignored=sample.ignored[unsure],
        ignored_labels=sample.ignored_labels[unsure],
        known=tuple(label for label in known if label not in lost) if lost else sample.known,
    )
