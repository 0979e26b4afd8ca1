"""What a teacher says about one picture: boxes, the best class of each pixel, or a probability for each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.pictures.imaging import FloatArray, UInt8Array


@dataclass(frozen=True, slots=True, eq=False)
class BoxAnswer:
    """Objects, the best first.

    Attributes:
        boxes: [K, 4] xyxy, in pixels of the upright picture, clipped to it, in hundredths.
        scores: [K] 0..1, with five digits.
        labels: [K] positions in the teacher's names.
    """

    boxes: FloatArray
    scores: FloatArray
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class MaskAnswer:
    """The best class of each pixel.

    Attributes:
        ids: [H, W] 0 for background, else 1 + the position in the teacher's names.
        probs: [H, W] how probable it is; 0..255 for 0..1.
    """

    ids: UInt8Array
    probs: UInt8Array


@dataclass(frozen=True, slots=True, eq=False)
class ClassAnswer:
    """How probable each class is.

    Attributes:
        probs: [P] of the teacher's names, 0..1, with six digits; what they lack to 1 is background.
    """

    probs: FloatArray


Answer: TypeAlias = BoxAnswer | MaskAnswer | ClassAnswer
