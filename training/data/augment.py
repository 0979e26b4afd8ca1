"""From a picture and its labels to a square that is never the same twice: what few pictures are stretched to many by.

With the defaults of `AugmentConfig` it is the square of serving, mirrored or not, and no random number is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np

from service.engine.contract import LetterboxRule
from service.pictures.imaging import FloatArray, UInt8Array
from training.data.colour import colour_jitter
from training.data.geometry import place_boxes, place_image, place_mask
from training.data.mixing import copy_paste, mosaic
from training.data.placement import Placement, draw_placement, letterboxed
from training.data.rand_augment import rand_augment
from training.data.taxonomy import VOID
from training.data.transforms import Boxes, Target, flip, to_input
from training.options.augment import AugmentConfig

Pick: TypeAlias = Callable[[np.random.Generator], tuple[UInt8Array, Target]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the examples of one batch have in common.

    Attributes:
        config: what may happen, and how likely. Mosaics are made of pictures with boxes, copy-paste of those with
            masks, RandAugment is for those with one class; each passes the others by.
        size: side of the square; in pixels.
        mask_stride: input pixels per mask cell.
        pick: hands out another picture of the same task, to be mirrored at random.
        class_weights: [C] how much a crop around an object prefers each class; None: all alike.
    """

    config: AugmentConfig
    size: int
    mask_stride: int
    pick: Pick
    class_weights: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Augmented:
    """What the network is shown, and asked.

    Attributes:
        image: [S, S, 3] RGB.
        target: boxes in input pixels, a mask [S / mask_stride, S / mask_stride], or a class.
        placement: where the picture lies, to place what is cached for it; None when other pictures are in it too.
    """

    image: UInt8Array
    target: Target
    placement: Placement | None


def augment(
    rng: np.random.Generator, image: UInt8Array, target: Target, recipe: Recipe, *, mirrored: bool
) -> Augmented:
    """Turn a picture and its labels into a training example.

    Args:
        rng: draws everything but `mirrored`.
        image: [H, W, 3] RGB.
        target: in pixels of the picture.
        recipe: of the batch.
        mirrored: mirror this picture; the loader tosses the coin.
    """
    config = recipe.config
    if isinstance(target, Boxes) and _happens(rng, config.mosaic):
        others = [recipe.pick(rng) for _ in range(3)]
        examples = [(image, target), *((other, cast("Boxes", boxes)) for other, boxes in others)]
        return Augmented(*mosaic(rng, examples, size=recipe.size, config=config), placement=None)
    image = _recolour(rng, image, target, config)
    square, placed, placement = _place(rng, image, target, recipe, mirrored=mirrored)
    if isinstance(placed, np.ndarray) and _happens(rng, config.copy_paste):
        return Augmented(*_paste(rng, square, placed, recipe), placement=None)
    return Augmented(square, placed, placement)


def choose_focus(
    rng: np.random.Generator, target: Target, class_weights: FloatArray | None
) -> tuple[float, float] | None:
    """Choose a class that the picture shows, by weight, and an object of it: a box's centre, or a pixel of a mask.

    Rare classes come up as often as common ones when weights are one by frequency (class-uniform sampling: Zhu et al.
    2019, arXiv:1812.01593).

    Returns:
        x, y in pixels of the picture; None when it shows no class with a weight, or is labelled as a whole.
    """
    if isinstance(target, int):
        return None
    if isinstance(target, Boxes):
        present = np.unique(target.labels)
    else:
        present = np.flatnonzero(np.bincount(target.ravel(), minlength=VOID + 1)[:VOID])
        present = present[present != 0]  # background is no object
    weights = np.ones(len(present)) if class_weights is None else class_weights[present].astype(np.float64)
    if weights.sum() == 0:
        return None
    label = rng.choice(present, p=weights / weights.sum())
    if isinstance(target, Boxes):
        x1, y1, x2, y2 = rng.choice(target.boxes[target.labels == label]).tolist()
        return (x1 + x2) / 2, (y1 + y2) / 2
    row, column = divmod(int(rng.choice(np.flatnonzero(target == label))), target.shape[1])
    return column + 0.5, row + 0.5


def _place(
    rng: np.random.Generator, image: UInt8Array, target: Target, recipe: Recipe, *, mirrored: bool
) -> tuple[UInt8Array, Target, Placement]:
    shape, config, size, mask_stride = _shape(image), recipe.config, recipe.size, recipe.mask_stride
    if config.is_letterbox:
        source = flip(image, target) if mirrored else (image, target)
        square, placed = to_input(*source, size=size, mask_stride=mask_stride)
        return square, placed, letterboxed(shape, size, mirrored=mirrored)
    focus = choose_focus(rng, target, recipe.class_weights) if _happens(rng, config.focus) else None
    placement = draw_placement(
        rng, shape, (size, size), scale=config.scale, stretch=config.stretch, mirrored=mirrored, focus=focus
    )
    square = place_image(image, placement, LetterboxRule().fill)
    if isinstance(target, Boxes):
        kept = place_boxes(target, placement, min_side_px=config.min_side_px, min_visible=config.min_visible)
        return square, kept, placement
    if isinstance(target, int):
        return square, target, placement
    return square, place_mask(target, placement, mask_stride), placement


def _recolour(rng: np.random.Generator, image: UInt8Array, target: Target, config: AugmentConfig) -> UInt8Array:
    # Before the picture is placed: padding keeps the colour that it has in serving.
    if isinstance(target, int):
        image = rand_augment(rng, image, config.rand_augment, config.rand_augment_magnitude)
    return colour_jitter(rng, image, config.colour)


def _paste(
    rng: np.random.Generator, square: UInt8Array, cells: UInt8Array, recipe: Recipe
) -> tuple[UInt8Array, UInt8Array]:
    config = recipe.config
    source, mask = recipe.pick(rng)
    placement = draw_placement(
        rng,
        _shape(source),
        _shape(square),
        scale=config.scale,
        stretch=config.stretch,
        mirrored=config.flip and bool(rng.integers(2)),
    )
    source = _recolour(rng, source, mask, config)
    return copy_paste(square, cells, source, cast("UInt8Array", mask), placement)


def _happens(rng: np.random.Generator, probability: float) -> bool:
    return probability > 0 and bool(rng.random() < probability)


def _shape(image: UInt8Array) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
