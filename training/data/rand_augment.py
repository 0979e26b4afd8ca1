"""RandAugment for pictures of one class (Cubuk et al. 2019, arXiv:1909.13719), with Pillow's operations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from service.engine.contract import LetterboxRule
from service.pictures.imaging import UInt8Array

# Greatest strengths: torchvision.transforms.v2.RandAugment, which has them from the paper's own code.
_SHEAR = 0.3
_TRANSLATE = 150 / 331  # of the side
_ROTATE_DEGREES = 30
_ENHANCE = 0.9
_POSTERIZE_BITS = 4


def _affine(picture: Image.Image, *matrix: float) -> Image.Image:
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=LetterboxRule().fill
    )


def _rotate(picture: Image.Image, level: float) -> Image.Image:
    return picture.rotate(level * _ROTATE_DEGREES, Image.Resampling.BILINEAR, fillcolor=LetterboxRule().fill)


# Each takes a level from -1 to 1; those that know no direction take its size.
OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda picture, _: picture,
    "shear_x": lambda picture, level: _affine(picture, 1, level * _SHEAR, 0, 0, 1, 0),
    "shear_y": lambda picture, level: _affine(picture, 1, 0, 0, level * _SHEAR, 1, 0),
    "translate_x": lambda picture, level: _affine(picture, 1, 0, level * _TRANSLATE * picture.width, 0, 1, 0),
    "translate_y": lambda picture, level: _affine(picture, 1, 0, 0, 0, 1, level * _TRANSLATE * picture.height),
    "rotate": _rotate,
    "brightness": lambda picture, level: ImageEnhance.Brightness(picture).enhance(1 + level * _ENHANCE),
    "colour": lambda picture, level: ImageEnhance.Color(picture).enhance(1 + level * _ENHANCE),
    "contrast": lambda picture, level: ImageEnhance.Contrast(picture).enhance(1 + level * _ENHANCE),
    "sharpness": lambda picture, level: ImageEnhance.Sharpness(picture).enhance(1 + level * _ENHANCE),
    "posterize": lambda picture, level: ImageOps.posterize(picture, 8 - round(abs(level) * _POSTERIZE_BITS)),
    "solarize": lambda picture, level: ImageOps.solarize(picture, round(255 * (1 - abs(level)))),
    "autocontrast": lambda picture, _: ImageOps.autocontrast(picture),
    "equalize": lambda picture, _: ImageOps.equalize(picture),
}


def rand_augment(rng: np.random.Generator, image: UInt8Array, operations: int, magnitude: float) -> UInt8Array:
    """Apply so many operations, drawn with repetition, each at the same strength in a direction drawn for it.

    Args:
        rng: draws operations and directions.
        image: [H, W, 3] RGB, 0..255.
        operations: how many; 0 changes and draws nothing.
        magnitude: 0..1.

    Returns:
        [H, W, 3] RGB, 0..255; what an operation lays bare is as the padding.
    """
    if operations == 0:
        return image
    picture = Image.fromarray(image)
    table = tuple(OPERATIONS.values())
    for chosen in rng.integers(len(table), size=operations).tolist():
        picture = table[chosen](picture, magnitude * (1 if rng.integers(2) else -1))
    return np.asarray(picture)
