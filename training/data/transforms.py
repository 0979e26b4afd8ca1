"""From a picture and its labels to what the network is trained on: pure functions, nothing is changed in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.engine.contract import LetterboxRule
from service.pictures.imaging import FloatArray, Letterbox, UInt8Array, letterbox
from training.data.taxonomy import VOID


def _no_boxes() -> FloatArray:
    return np.zeros((0, 4), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Boxes:
    """The objects of one picture, and where it cannot be told whether there are more.

    Attributes:
        boxes: [M, 4] xyxy; in pixels of the picture they go with, as all boxes here.
        labels: [M] class ids.
        scores: [M] how sure it is that there is such an object, 0..1; None: all are 1.
        ignored: [I, 4] regions that are no background of their class, though no object is known in them.
        ignored_labels: [I] their class ids, or `ANY_CLASS`.
        areas: [R, 4] parts of the square in which some classes were not looked for; none lies on another.
        unknown: [R, D] which of all classes those are.
    """

    boxes: FloatArray
    labels: NDArray[np.int64]
    scores: FloatArray | None = None
    ignored: FloatArray = field(default_factory=_no_boxes)
    ignored_labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    areas: FloatArray = field(default_factory=_no_boxes)
    unknown: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.bool_))

    def select(self, rows: NDArray[np.bool_]) -> Boxes:
        """Keep the boxes where `rows` [M] is true, and all regions."""
        scores = None if self.scores is None else self.scores[rows]
        return replace(self, boxes=self.boxes[rows], labels=self.labels[rows], scores=scores)

    def move(self, carry: Callable[[FloatArray], FloatArray]) -> Boxes:
        """Everything where `carry` puts it, which takes boxes [K, 4] and gives them back elsewhere."""
        return replace(self, boxes=carry(self.boxes), ignored=carry(self.ignored), areas=carry(self.areas))


def join_boxes(parts: Sequence[Boxes]) -> Boxes:
    """All that several have, in the pixels of one square."""
    scored = any(part.scores is not None for part in parts)
    sure = [np.ones(len(part.labels), dtype=np.float32) if part.scores is None else part.scores for part in parts]
    return Boxes(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.labels for part in parts]),
        scores=np.concatenate(sure) if scored else None,
        ignored=np.concatenate([part.ignored for part in parts]),
        ignored_labels=np.concatenate([part.ignored_labels for part in parts]),
        areas=np.concatenate([part.areas for part in parts]),
        unknown=np.concatenate([part.unknown for part in parts if len(part.areas)] or [parts[0].unknown]),
    )


# A mask [H, W] of class ids, boxes, or the class of the whole picture.
Target: TypeAlias = UInt8Array | Boxes | int


def flip(image: UInt8Array, target: Target) -> tuple[UInt8Array, Target]:
    """Mirror a picture left to right, and its mask or boxes with it."""
    flipped = np.ascontiguousarray(image[:, ::-1])
    if isinstance(target, Boxes):
        width = image.shape[1]
        return flipped, target.move(lambda boxes: _mirror(boxes, width))
    if isinstance(target, int):
        return flipped, target
    return flipped, np.ascontiguousarray(target[:, ::-1])


def _mirror(boxes: FloatArray, width: int) -> FloatArray:
    x1, y1, x2, y2 = boxes.T
    return np.stack([width - x2, y1, width - x1, y2], axis=1)


def to_input(image: UInt8Array, target: Target, *, size: int, mask_stride: int) -> tuple[UInt8Array, Target]:
    """Letterbox a picture as serving does, and carry its labels along.

    Args:
        image: [H, W, 3] RGB.
        target: in pixels of the picture.
        size: side of the network's input; in pixels.
        mask_stride: input pixels per mask cell.

    Returns:
        [size, size, 3] RGB; boxes in input pixels, a mask [size / mask_stride, size / mask_stride] with void
        on the padding, or the class as it came.
    """
    square, place = letterbox(image, size, LetterboxRule().fill)
    if isinstance(target, Boxes):
        return square, target.move(place.boxes_to_input)
    if isinstance(target, int):
        return square, target
    return square, letterbox_mask(target, place, size=size, stride=mask_stride)


def letterbox_mask(mask: UInt8Array, place: Letterbox, *, size: int, stride: int) -> UInt8Array:
    """[H, W] class ids of the original to cells of the square: each takes the pixel under its centre, void outside."""
    centres = (np.arange(size // stride) + 0.5) * stride
    rows = centres[centres < place.resized_height] * (place.height / place.resized_height)
    columns = centres[centres < place.resized_width] * (place.width / place.resized_width)
    cells = np.full((size // stride, size // stride), VOID, dtype=np.uint8)
    cells[: len(rows), : len(columns)] = mask[rows.astype(np.intp)][:, columns.astype(np.intp)]
    return cells
