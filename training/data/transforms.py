"""From a picture and its labels to what the network is trained on: pure functions, nothing is changed in place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.engine.contract import LetterboxRule
from service.pictures.imaging import FloatArray, Letterbox, UInt8Array, letterbox
from training.data.taxonomy import VOID


@dataclass(frozen=True, slots=True)
class Boxes:
    """The objects of one picture.

    Attributes:
        boxes: [M, 4] xyxy; in pixels of the picture they go with.
        labels: [M] class ids.
    """

    boxes: FloatArray
    labels: NDArray[np.int64]

    def select(self, rows: NDArray[np.bool_]) -> Boxes:
        """Keep the boxes where `rows` [M] is true."""
        return Boxes(self.boxes[rows], self.labels[rows])


# A mask [H, W] of class ids, boxes, or the class of the whole picture.
Target: TypeAlias = UInt8Array | Boxes | int


def flip(image: UInt8Array, target: Target) -> tuple[UInt8Array, Target]:
    """Mirror a picture left to right, and its mask or boxes with it."""
    flipped = np.ascontiguousarray(image[:, ::-1])
    if isinstance(target, Boxes):
        x1, y1, x2, y2 = target.boxes.T
        width = image.shape[1]
        return flipped, replace(target, boxes=np.stack([width - x2, y1, width - x1, y2], axis=1))
    if isinstance(target, int):
        return flipped, target
    return flipped, np.ascontiguousarray(target[:, ::-1])


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
        return square, replace(target, boxes=place.boxes_to_input(target.boxes))
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
