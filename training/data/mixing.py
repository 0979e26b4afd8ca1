"""Squares that show more than one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.engine.contract import LetterboxRule
from service.pictures.imaging import UInt8Array
from training.data.colour import colour_jitter
from training.data.geometry import place_boxes, place_image, place_mask
from training.data.placement import Placement, draw_placement
from training.data.taxonomy import VOID
from training.data.transforms import Boxes, join_boxes
from training.options.augment import AugmentConfig

# The nearest that the four pictures' common corner comes to a side (AlexeyAB/darknet, src/data.c, min_offset).
_MIN_OFFSET = 0.2
# VOC's borders are about 5 px wide; counted along the axes, a slanted one is sqrt(2) times as wide.
_RING_PX = 8


def mosaic(
    rng: np.random.Generator, examples: Sequence[tuple[UInt8Array, Boxes]], *, size: int, config: AugmentConfig
) -> tuple[UInt8Array, Boxes]:
    """Fill a square with four pictures round a random point (YOLOv4, arXiv:2004.10934, sec. 3.3).

    Each covers its quarter: at least just so, at most the largest `config.scale` times that, at a place of its own.

    Args:
        rng: draws the point, sizes, places and colours, and mirrors if `config.flip`.
        examples: four pictures [H, W, 3] RGB and their objects.
        size: side of the square; in pixels.
        config: what may be done to the pictures and which boxes stay.

    Returns:
        [size, size, 3] RGB, and the objects in pixels of the square, clipped to their quarters.
    """
    x, y = (round(size * share) for share in rng.uniform(_MIN_OFFSET, 1 - _MIN_OFFSET, 2).tolist())
    corners = [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]
    square = np.empty((size, size, 3), dtype=np.uint8)
    found: list[Boxes] = []
    for (image, boxes), (left, top, right, bottom) in zip(examples, corners, strict=True):
        height, width = image.shape[:2]
        placement = _cover(rng, (height, width), (bottom - top, right - left), config)
        quarter = place_image(image, placement, LetterboxRule().fill)
        # Now, not before: a whole picture may have many times the pixels that are left of it.
        square[top:bottom, left:right] = colour_jitter(rng, quarter, config.colour)
        placed = place_boxes(boxes, placement, min_side_px=config.min_side_px, min_visible=config.min_visible)
        shift = np.array([left, top, left, top], dtype=np.float32)
        found.append(placed.move(partial(np.add, shift)))
    return square, join_boxes(found)


def _cover(
    rng: np.random.Generator, picture: tuple[int, int], quarter: tuple[int, int], config: AugmentConfig
) -> Placement:
    ratios = [inner / outer for inner, outer in zip(quarter, picture, strict=True)]
    # Scale 1 fits in; this much covers, even when one side is squeezed.
    low = max(ratios) / min(ratios) * math.sqrt(1 + config.stretch)
    return draw_placement(
        rng,
        picture,
        quarter,
        scale=(low, low * max(1.0, config.scale[1])),
        stretch=config.stretch,
        mirrored=config.flip and bool(rng.integers(2)),
    )


def copy_paste(
    square: UInt8Array, cells: UInt8Array, source: UInt8Array, source_mask: UInt8Array, placement: Placement
) -> tuple[UInt8Array, UInt8Array]:
    """Paste the objects of another picture, without its background (Ghiasi et al. 2021, arXiv:2012.07177).

    The void border that VOC draws round an object, and between two that touch, comes along and stays void.

    Args:
        square: [S, S, 3] RGB to paste on.
        cells: [S / stride, S / stride] its class ids.
        source: [H, W, 3] RGB with the objects.
        source_mask: [H, W] class ids of the source; 0 is background.
        placement: where the source would lie in the square.

    Returns:
        Like `square` and `cells`: the picture changed pixel by pixel, each cell by the pixel in its middle.
    """
    labels = place_mask(source_mask, placement, stride=1)
    objects = (labels != 0) & (labels != VOID)
    inside = np.zeros_like(objects)
    inside[placement.y.visible, placement.x.visible] = True
    border = round(_RING_PX * max(placement.x.scale, placement.y.scale))
    covered = objects | ((labels == VOID) & inside & _grow(objects, border))
    pasted = np.where(covered[:, :, None], place_image(source, placement, LetterboxRule().fill), square)
    stride = square.shape[0] // cells.shape[0]
    middle = slice(stride // 2, None, stride)
    return pasted, np.where(covered[middle, middle], labels[middle, middle], cells)


def _grow(region: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Add what lies within so many steps up, down, left or right."""
    for _ in range(steps):
        grown = region.copy()
        grown[1:] |= region[:-1]
        grown[:-1] |= region[1:]
        grown[:, 1:] |= region[:, :-1]
        grown[:, :-1] |= region[:, 1:]
        region = grown
    return region
