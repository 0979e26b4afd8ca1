"""Random colours: brightness, contrast and saturation of a picture."""

from __future__ import annotations

import numpy as np
from PIL import Image

from service.pictures.imaging import UInt8Array

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601: the grey of JPEG, Pillow and torchvision


def colour_jitter(rng: np.random.Generator, image: UInt8Array, strength: float) -> UInt8Array:
    """Draw three factors from 1 - strength to 1 + strength, and apply them; without strength nothing is drawn.

    Args:
        rng: draws the factors of brightness, contrast and saturation.
        image: [H, W, 3] RGB, 0..255.
        strength: 0..1.

    Returns:
        [H, W, 3] RGB, 0..255.
    """
    if strength == 0:
        return image
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3).tolist()
    return adjust_colours(image, brightness=brightness, contrast=contrast, saturation=saturation)


def adjust_colours(image: UInt8Array, *, brightness: float, contrast: float, saturation: float) -> UInt8Array:
    """Scale a picture's light, its distance from the mean grey, and the distance of its colours from grey.

    The three are torchvision's `adjust_*` one after the other, as one matrix, so that values are clipped only once.
    """
    # Every fourth pixel tells the mean well enough, ten times as fast.
    mean_grey = brightness * float(image[::4, ::4].mean(axis=(0, 1)) @ _LUMA)
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * _LUMA)
    offset = np.full((3, 1), (1 - contrast) * mean_grey)
    rows = np.hstack([matrix, offset]).ravel().tolist()
    return np.asarray(Image.fromarray(image).convert("RGB", tuple(rows)))
