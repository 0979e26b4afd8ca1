"""Where a picture lies on the canvas that the network sees, along each axis: decided here, followed in `geometry`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.pictures.imaging import FloatArray, fit


@dataclass(frozen=True, slots=True)
class Span:
    """How a picture lies on the canvas along one axis.

    Attributes:
        length: of the picture; in its own pixels.
        resized: of the whole picture after resizing; in canvas pixels.
        offset: where the resized picture begins; in canvas pixels, negative where it is cropped.
        canvas: length of the canvas; in pixels.
        mirrored: the picture is turned round before it is laid there.

    Raises:
        ValueError: nothing of the picture would lie on the canvas.
    """

    length: int
    resized: int
    offset: int
    canvas: int
    mirrored: bool = False

    def __post_init__(self) -> None:
        if not -self.resized < self.offset < self.canvas:
            raise ValueError(
                f"{self.resized} px at {self.offset} show nothing on a canvas of {self.canvas}; wanted at least one"
            )

    @property
    def scale(self) -> float:
        """Canvas pixels per pixel of the picture."""
        return self.resized / self.length

    @property
    def visible(self) -> slice:
        """The pixels of the canvas that show the picture."""
        return slice(max(0, self.offset), min(self.canvas, self.offset + self.resized))

    def to_canvas(self, positions: FloatArray) -> FloatArray:
        """Positions in pixels of the picture, to the canvas; not clipped to it."""
        turned = self.length - positions if self.mirrored else positions
        return (turned * self.scale + self.offset).astype(np.float32)

    def cells(self, stride: int) -> NDArray[np.bool_]:
        """[canvas / stride] whether a cell's centre shows the picture."""
        centres = self._centres(stride)
        return (centres >= 0) & (centres < self.resized)

    def samples(self, stride: int, count: int) -> NDArray[np.float64]:
        """Where the cells that show the picture take their value, if `count` equal samples cover the picture.

        Returns:
            One position a cell in sample widths, from 0 to `count`; sample i reaches from i to i + 1. They count from
            the far end when the picture is mirrored.
        """
        return self._centres(stride)[self.cells(stride)] * (count / self.resized)

    def nearest(self, stride: int, count: int) -> NDArray[np.intp]:
        """Like `samples`: the index of the sample that each cell's centre lies in."""
        indices = self.samples(stride, count).astype(np.intp)
        return count - 1 - indices if self.mirrored else indices

    def crop(self) -> tuple[slice, int, int]:
        """Find the whole pixels of the picture that the canvas shows: which, where they begin there, and their length.

        Ends that fall between two pixels of the canvas are rounded, which moves the picture by half a pixel at most.
        """
        begin = (self.visible.start - self.offset) * self.length // self.resized
        end = -((self.offset - self.visible.stop) * self.length // self.resized)
        start, stop = (round(position * self.resized / self.length) for position in (begin, end))
        source = slice(self.length - end, self.length - begin) if self.mirrored else slice(begin, end)
        return source, self.offset + start, stop - start

    def _centres(self, stride: int) -> NDArray[np.float64]:
        return (np.arange(self.canvas // stride, dtype=np.float64) + 0.5) * stride - self.offset


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a whole picture lies on the canvas: cropped by its edges, surrounded by padding, or both."""

    x: Span
    y: Span


def letterboxed(picture: tuple[int, int], size: int, *, mirrored: bool = False) -> Placement:
    """Place a picture (height, width) in a square of `size` pixels as serving does (`pictures.imaging.letterbox`)."""
    height, width = picture
    place = fit(width, height, size)
    return Placement(Span(width, place.resized_width, 0, size, mirrored), Span(height, place.resized_height, 0, size))


def draw_placement(
    rng: np.random.Generator,
    picture: tuple[int, int],
    canvas: tuple[int, int],
    *,
    scale: tuple[float, float],
    stretch: float = 0.0,
    mirrored: bool = False,
    focus: tuple[float, float] | None = None,
) -> Placement:
    """Draw a placement by large-scale jitter (Ghiasi et al. 2021, arXiv:2012.07177, sec. 3).

    The position is uniform: any crop along an axis where the picture is longer than the canvas, else any place in it.

    Args:
        rng: draws size, stretch and position.
        picture: its height and width; in pixels.
        canvas: its height and width; in pixels.
        scale: lowest and highest size, log-uniform; 1 just fits the canvas.
        stretch: width / height is multiplied by up to 1 + stretch or divided by it, log-uniform; the area stays.
        mirrored: mirror the picture left to right.
        focus: x, y of a point that the canvas must show; in pixels of the picture before it is mirrored.
    """
    (height, width), (canvas_height, canvas_width) = picture, canvas
    zoom = min(canvas_height / height, canvas_width / width) * math.exp(rng.uniform(*np.log(scale)))
    aspect = math.exp(rng.uniform(-1, 1) * math.log1p(stretch) / 2)
    x = Span(width, max(1, round(width * zoom * aspect)), 0, canvas_width, mirrored)
    y = Span(height, max(1, round(height * zoom / aspect)), 0, canvas_height)
    focus_x, focus_y = focus or (None, None)
    return Placement(_move(rng, x, focus_x), _move(rng, y, focus_y))


def _move(rng: np.random.Generator, span: Span, focus: float | None) -> Span:
    low, high = sorted((0, span.canvas - span.resized))
    if focus is not None:
        at = (span.length - focus if span.mirrored else focus) * span.scale
        low, high = max(low, math.ceil(-at)), min(high, math.ceil(span.canvas - at) - 1)
    return replace(span, offset=int(rng.integers(low, high, endpoint=True)))
