"""How a picture, its labels and the maps that are cached for it get to where a placement puts them."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.pictures.imaging import FloatArray, UInt8Array
from service.pictures.resizing import resize
from training.data.placement import Placement, Span
from training.data.taxonomy import VOID
from training.data.transforms import Boxes

MapArray = TypeVar("MapArray", NDArray[np.float16], NDArray[np.float32])


def place_image(image: UInt8Array, placement: Placement, fill: tuple[int, int, int]) -> UInt8Array:
    """Resize what is seen of a picture [H, W, 3] RGB and lay it on a canvas of `fill`: [canvas height, width, 3] RGB.

    Only the visible part is resized, so a strong zoom costs no more than a weak one; it lies off by half a pixel at
    most, and not at all when the whole picture is seen.
    """
    x, y = placement.x, placement.y
    columns, left, width = x.crop()
    rows, top, height = y.crop()
    part = image[rows, columns]
    resized = resize(part[:, ::-1] if x.mirrored else part, width, height)
    canvas = np.full((y.canvas, x.canvas, 3), fill, dtype=np.uint8)
    seen_rows, seen_columns = (
        slice(axis.visible.start - start, axis.visible.stop - start) for axis, start in ((y, top), (x, left))
    )
    canvas[y.visible, x.visible] = resized[seen_rows, seen_columns]
    return canvas


def place_mask(mask: UInt8Array, placement: Placement, stride: int) -> UInt8Array:
    """[H, W] class ids of the picture to cells of the canvas: each takes the pixel under its centre, void outside.

    Returns:
        [canvas height / stride, canvas width / stride] class ids.
    """
    x, y = placement.x, placement.y
    cells = np.full((y.canvas // stride, x.canvas // stride), VOID, dtype=np.uint8)
    height, width = mask.shape
    cells[np.ix_(y.cells(stride), x.cells(stride))] = mask[np.ix_(y.nearest(stride, height), x.nearest(stride, width))]
    return cells


def place_map(values: MapArray, placement: Placement, stride: int) -> tuple[MapArray, NDArray[np.bool_]]:
    """Carry a map of the whole picture, such as a teacher's logits, to cells of the canvas: bilinear at their centres.

    Args:
        values: [h, w, C] of any size; its cells, all equal, cover the whole picture and nothing else.
        placement: where the picture lies.
        stride: canvas pixels per cell.

    Returns:
        [canvas height / stride, canvas width / stride, C] values, zero outside the picture, and which cells
        [canvas height / stride, canvas width / stride] lie in it.
    """
    x, y = placement.x, placement.y
    inside = np.ix_(y.cells(stride), x.cells(stride))
    valid: NDArray[np.bool_] = y.cells(stride)[:, None] & x.cells(stride)
    height, width, channels = values.shape
    placed = np.zeros((*valid.shape, channels), dtype=values.dtype)
    top, bottom, down = _neighbours(y, stride, height)
    left, right, across = _neighbours(x, stride, width)
    # Rows first: a mask's worth of rows is gathered, not four whole maps.
    rows = values[top] * (1 - down[:, None, None]) + values[bottom] * down[:, None, None]
    placed[inside] = rows[:, left] * (1 - across[:, None]) + rows[:, right] * across[:, None]
    return placed, valid


def _neighbours(span: Span, stride: int, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray]:
    """The two samples whose centres surround each cell's centre, and the weight of the second."""
    samples = span.samples(stride, count)
    positions = ((count - samples if span.mirrored else samples) - 0.5).clip(0, count - 1)
    before = positions.astype(np.intp)
    return before, np.minimum(before + 1, count - 1), (positions - before).astype(np.float32)


def place_boxes(boxes: Boxes, placement: Placement, *, min_side_px: float, min_visible: float) -> Boxes:
    """Carry boxes and regions in pixels of the picture to the canvas and clip them to it.

    What is seen of a box that is too small or too little of it is no object any more, nor background: it is ignored.

    Args:
        boxes: of the picture.
        placement: where the picture lies.
        min_side_px: boxes whose width or height is smaller on the canvas are ignored; in canvas pixels.
        min_visible: boxes of which the canvas shows a smaller share of their area are ignored; 0..1.
    """
    whole = boxes.move(lambda sides: _to_canvas(sides, placement))
    corner = np.array([placement.x.canvas, placement.y.canvas] * 2, dtype=np.float32)
    clipped = whole.move(lambda sides: sides.clip(0, corner))
    sides = clipped.boxes[:, 2:] - clipped.boxes[:, :2]
    area = (whole.boxes[:, 2:] - whole.boxes[:, :2]).prod(axis=1)
    seen = (sides > 0).all(axis=1)
    keep = seen & (sides >= min_side_px).all(axis=1) & (sides.prod(axis=1) >= min_visible * area)
    rests, regions = seen & ~keep, (clipped.ignored[:, 2:] > clipped.ignored[:, :2]).all(axis=1)
    return replace(
        clipped.select(keep),
        ignored=np.concatenate([clipped.ignored[regions], clipped.boxes[rests]]),
        ignored_labels=np.concatenate([clipped.ignored_labels[regions], clipped.labels[rests]]),
    )


def _to_canvas(boxes: FloatArray, placement: Placement) -> FloatArray:
    across, down = placement.x.to_canvas(boxes[:, [0, 2]]), placement.y.to_canvas(boxes[:, [1, 3]])
    across.sort(axis=1)  # mirroring swaps left and right
    return np.stack([across[:, 0], down[:, 0], across[:, 1], down[:, 1]], axis=1)
