"""Masks that are told by outlines: polygons and run lengths as COCO has them, filled into class labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from service.pictures.imaging import UInt8Array

# Pillow fills every pixel that a rim touches: on a finer canvas, whose middles are taken, rims are thinner.
_FINER = 3
_LEAST_NUMBERS = 6  # three corners


@dataclass(frozen=True, slots=True)
class Runs:
    """Run lengths down the columns: off, on, off ..., as numbers or as COCO's text of them."""

    counts: str | tuple[int, ...]


# x, y, x, y ... in pixels, one or more polygons an object.
Polygons: TypeAlias = tuple[tuple[float, ...], ...]
Shape: TypeAlias = Polygons | Runs


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """The objects of one picture by their outlines.

    Attributes:
        width, height: of the picture; in pixels.
        shapes: one an object, with its label 1..254; larger ones come first, so that small ones lie on top. Label
            `VOID` marks what is neither object nor background.
    """

    width: int
    height: int
    shapes: tuple[tuple[int, Shape], ...]

    def draw(self) -> UInt8Array:
        """Fill the outlines in: [H, W] labels, 0 where there is none.

        Raises:
            ValueError: runs do not add up to the picture.
        """
        canvas = Image.new("L", (self.width * _FINER, self.height * _FINER), 0)
        draw = ImageDraw.Draw(canvas)
        for label, shape in self.shapes:
            if isinstance(shape, Runs):
                mask = decode_runs(shape.counts, self.width, self.height)
                finer = Image.fromarray(mask.astype(np.uint8) * 255).resize(canvas.size, Image.Resampling.NEAREST)
                canvas.paste(label, mask=finer)
                continue
            for polygon in shape:
                # COCO's corners count from a pixel's edge, Pillow's from its centre.
                draw.polygon([position * _FINER - 0.5 for position in polygon], fill=label)
        middle = _FINER // 2
        return np.array(canvas, dtype=np.uint8)[middle::_FINER, middle::_FINER].copy()

    def read_bytes(self) -> bytes:
        """What decides the mask, for fingerprints."""
        return repr((self.width, self.height, self.shapes)).encode()


def decode_runs(counts: str | Sequence[int], width: int, height: int) -> NDArray[np.bool_]:
    """Decode COCO's run lengths (cocoapi, common/maskApi.c): runs go down the columns, the first is of nothing.

    Raises:
        ValueError: they do not add up to the picture.
    """
    runs = decode_text(counts) if isinstance(counts, str) else list(counts)
    if sum(runs) != width * height or any(run < 0 for run in runs):
        raise ValueError(f"its run lengths add up to {sum(runs)}; wanted {width} x {height} = {width * height}")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(width, height).T


def decode_text(text: str) -> list[int]:
    """COCO's compressed counts: five bits a character, the sixth says that more come; each is a difference."""
    runs: list[int] = []
    position = 0
    while position < len(text):
        value = shift = 0
        more = True
        while more and position < len(text):
            bits = ord(text[position]) - 48
            value |= (bits & 0x1F) << shift
            more = bool(bits & 0x20)
            position, shift = position + 1, shift + 5
            if not more and bits & 0x10:
                value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)  # noqa: PLR2004 - the first three stand alone
    return runs


def read_shape(value: object) -> Shape | None:
    """A `segmentation` field as a shape; None where it has none: null, no polygon, or nothing that is one."""
    if isinstance(value, dict):
        counts = value.get("counts")
        if isinstance(counts, str) and counts:
            return Runs(counts)
        return Runs(tuple(int(count) for count in counts)) if isinstance(counts, list) and counts else None
    if not isinstance(value, list):
        return None
    polygons = value if value and isinstance(value[0], list) else [value]
    kept = [tuple(float(number) for number in polygon) for polygon in polygons if len(polygon) >= _LEAST_NUMBERS]
    return tuple(polygon for polygon in kept if len(polygon) % 2 == 0 and all(np.isfinite(polygon))) or None


def bounds(shape: Shape) -> tuple[float, float, float, float] | None:
    """The box around polygons, xyxy; None for run lengths."""
    if isinstance(shape, Runs):
        return None
    xs = [x for polygon in shape for x in polygon[0::2]]
    ys = [y for polygon in shape for y in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)
