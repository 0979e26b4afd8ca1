"""Untrusted bytes to upright RGB, and pictures of any shape into the network's square: the only code that does it.

Evaluation in training uses this module too, so that what is measured is what is served.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.errors import DamagedImage
from service.pictures.header import check_picture
from service.pictures.limits import DEFAULT_LIMITS, Kind, PictureHeader, PictureLimits
from service.pictures.mending import take_apart
from service.pictures.pillow import decode_by_pillow, decode_unusual_jpeg
from service.pictures.png import reduce_png
from service.pictures.resizing import Resize, resize
from service.pictures.turbo import decode_by_turbo, decode_odd_jpeg
from service.pictures.webp import mend_webp

UInt8Array: TypeAlias = NDArray[np.uint8]
FloatArray: TypeAlias = NDArray[np.float32]

_TURNED = frozenset({5, 6, 7, 8})  # the orientations that swap width and height


def decode(body: bytes, limits: PictureLimits = DEFAULT_LIMITS) -> UInt8Array:
    """Decode a JPEG, PNG or WebP picture to upright RGB; bytes after its end marker are ignored.

    One rule a kind: EXIF orientation is applied; grey is repeated; 16 bits are scaled to 8; palettes are looked up;
    CMYK is converted without colour profiles; transparency lies over white; of an animation the first frame counts,
    and of a file with several JPEGs (MPO) the first one. Nothing else of the metadata is read.

    Args:
        body: the picture as it came.
        limits: beyond which it is refused before it is decoded.

    Returns:
        [H, W, 3] RGB, 0..255.

    Raises:
        EmptyBody, UnsupportedImage, TooManyPixels, DamagedImage, PictureTooCostly: see `service.errors`.
    """
    return _decode(body, limits, size=None)[0]


def decode_for(size: int, body: bytes, limits: PictureLimits = DEFAULT_LIMITS) -> tuple[UInt8Array, tuple[int, int]]:
    """Decode a picture that will be letterboxed to `size` pixels: as `decode`, but no more of a large JPEG than needed.

    A JPEG can be decoded at a half, a quarter or an eighth of its sides, which saves most of the work. This is done as
    long as its longer side keeps 1.5 times `size`; the letterboxed pictures then differ by less than a level.

    Returns:
        [h, w, 3] RGB, 0..255, perhaps smaller than the picture; and the width and height of the upright original.

    Raises:
        EmptyBody, UnsupportedImage, TooManyPixels, DamagedImage, PictureTooCostly: as `decode`.
    """
    return _decode(body, limits, size=size)


def _decode(body: bytes, limits: PictureLimits, *, size: int | None) -> tuple[UInt8Array, tuple[int, int]]:
    header = check_picture(body, limits)
    try:
        pixels = _DECODERS[header.kind](body, header, size)
    except MemoryError:  # no fault of the picture, which is as small as allowed
        raise
    except DamagedImage:
        raise
    except Exception as error:  # decoders raise nearly every built-in type on damaged bytes
        raise DamagedImage(f"the {header.kind} picture is damaged or cut short and cannot be decoded") from error
    sides = (header.width, header.height)
    return _upright(pixels, header.orientation), sides[::-1] if header.orientation in _TURNED else sides


def _decode_jpeg(body: bytes, header: PictureHeader, size: int | None) -> UInt8Array:
    if header.is_usual:
        try:
            return decode_by_turbo(body, header, size)
        except ValueError:  # most often cut short; else its bytes are not in order, as many a camera writes them
            return decode_odd_jpeg(take_apart(body), header, size)
    return decode_unusual_jpeg(take_apart(body), header)


def _decode_png(body: bytes, header: PictureHeader, _: int | None) -> UInt8Array:
    return decode_by_pillow(reduce_png(body), header)


def _decode_webp(body: bytes, header: PictureHeader, _: int | None) -> UInt8Array:
    return decode_by_pillow(mend_webp(body), header)


_DECODERS: dict[Kind, Callable[[bytes, PictureHeader, int | None], UInt8Array]] = {
    "JPEG": _decode_jpeg,
    "PNG": _decode_png,
    "WEBP": _decode_webp,
}


def _upright(pixels: UInt8Array, orientation: int) -> UInt8Array:
    """Undo an EXIF orientation (1..8, Exif 2.32 table 4.6.4); other values leave the picture as it is."""
    if orientation in _TURNED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where a picture lies inside the network's square input: in its top left corner, the rest is padding.

    Attributes:
        width, height: of the original picture; in pixels.
        resized_width, resized_height: of the picture inside the square; in input pixels.
    """

    width: int
    height: int
    resized_width: int
    resized_height: int

    def boxes_to_original(self, boxes: FloatArray) -> FloatArray:
        """[K, 4] xyxy in input pixels to xyxy in pixels of the original picture, clipped to it."""
        across, down = self.width / self.resized_width, self.height / self.resized_height
        scaled = boxes * np.array([across, down, across, down], dtype=np.float32)
        limits = np.array([self.width, self.height, self.width, self.height], dtype=np.float32)
        return scaled.clip(0, limits)

    def boxes_to_input(self, boxes: FloatArray) -> FloatArray:
        """[K, 4] xyxy in pixels of the original picture to xyxy in input pixels."""
        across, down = self.resized_width / self.width, self.resized_height / self.height
        return boxes * np.array([across, down, across, down], dtype=np.float32)

    def mask_to_original(self, mask: UInt8Array, stride: int) -> UInt8Array:
        """[S / stride, S / stride] class ids to [height, width]: each pixel takes the cell that its centre lies in."""
        rows, columns = self.cells_of_pixels(stride)
        return mask[:, columns][rows]

    def cells_of_pixels(self, stride: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """[height] and [width]: the row and the column of a mask's cell that each pixel's centre lies in."""
        rows = _cell_of_pixel(self.height, self.resized_height, stride)
        return rows, _cell_of_pixel(self.width, self.resized_width, stride)

    def pixels_of_cells(self, cells: int, stride: int) -> NDArray[np.int64]:
        """[cells, cells]: how many pixels of the original take each cell of a mask; they sum to width x height."""
        rows, columns = (np.bincount(one, minlength=cells) for one in self.cells_of_pixels(stride))
        return np.outer(rows, columns)


def _cell_of_pixel(original: int, resized: int, stride: int) -> NDArray[np.intp]:
    centres = (np.arange(original) + 0.5) * (resized / original)
    return (centres / stride).astype(np.intp)


def fit(width: int, height: int, size: int) -> Letterbox:
    """Scale width x height (pixels, >= 1) to fit a square of `size` pixels; no side shrinks below one pixel."""
    scale = size / max(width, height)
    return Letterbox(width, height, max(1, round(width * scale)), max(1, round(height * scale)))


@functools.lru_cache(maxsize=4)
def _blank(size: int, fill: tuple[int, int, int]) -> UInt8Array:
    # Copying a filled square is 50 times as fast as filling one: numpy repeats three values slowly.
    return np.full((size, size, 3), fill, dtype=np.uint8)


def letterbox(
    image: UInt8Array,
    size: int,
    fill: tuple[int, int, int],
    *,
    original: tuple[int, int] | None = None,
    resize: Resize = resize,
) -> tuple[UInt8Array, Letterbox]:
    """Scale an RGB picture to fit a square, place it top left, pad with `fill`.

    Args:
        image: [H, W, 3] RGB, 0..255.
        size: side of the square; in pixels.
        fill: RGB of the padding, 0..255.
        original: width and height of the picture where `image` has been made smaller; in pixels.
        resize: the resizer, for comparing one with another.

    Returns:
        [size, size, 3] RGB, 0..255, and where the picture lies in it.
    """
    width, height = original or (image.shape[1], image.shape[0])
    place = fit(width, height, size)
    canvas = _blank(size, fill).copy()
    canvas[: place.resized_height, : place.resized_width] = resize(image, place.resized_width, place.resized_height)
    return canvas, place
