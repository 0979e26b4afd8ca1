"""What a picture says of itself before it is decoded, and how much of that is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from service.errors import PictureTooCostly, TooManyPixels

Kind: TypeAlias = Literal["JPEG", "PNG", "WEBP"]

# Parsers count scans, chunks and frames no further, so that they end soon on whatever they are given.
MOST_COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What the bytes of a picture say about it.

    Attributes:
        kind: the format.
        width, height: as they are stored, before the orientation turns them; in pixels, >= 1.
        frames: pictures of an animation, 1 where there is none.
        scans: passes that a decoder makes over the picture, at most; only a JPEG needs more than one.
        orientation: as EXIF has it, 1..8.
        channels: samples of a pixel once palettes are looked up, alpha among them; 1..4.
        bits: of a sample, 8 or 16.
        coefficients: kept until the last scan of a JPEG that has several; 0 for all others.
        is_usual: false for a JPEG whose channels are sampled so that only Pillow decodes it.
    """

    kind: Kind
    width: int
    height: int
    frames: int = 1
    scans: int = 1
    orientation: int = 1
    channels: int = 3
    bits: int = 8
    coefficients: int = 0
    is_usual: bool = True


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """How large a picture may be, and what decoding it may cost.

    Attributes:
        max_pixels: width times height.
        max_side: the longer side; in pixels.
        max_aspect: the longer side divided by the shorter.
        max_scans: scans of a JPEG.
        max_scan_megapixels: scans times megapixels of a JPEG that has several; 0.7 ms each.
        max_frames: pictures of an animation; the first is looked at, whatever the limit.
    """

    max_pixels: int = 25_000_000
    max_side: int = 16_384
    max_aspect: int = 200
    max_scans: int = 100
    max_scan_megapixels: int = 400
    max_frames: int = 1

    def allow_scans(self, header: PictureHeader) -> bool:
        """Whether a picture has no more scans than one of its size may have."""
        if header.scans <= 1:
            return True
        cost = header.scans * header.width * header.height
        return header.scans <= self.max_scans and cost <= self.max_scan_megapixels * 1_000_000

    def check(self, header: PictureHeader) -> None:
        """Hold a header against the limits.

        Raises:
            TooManyPixels: a side, or both together.
            PictureTooCostly: the shape, the scans or the frames.
        """
        width, height = header.width, header.height
        if width * height > self.max_pixels:
            raise TooManyPixels(f"the picture has {width} x {height} pixels; the limit is {self.max_pixels} in all")
        if max(width, height) > self.max_side:
            raise TooManyPixels(f"the picture has {width} x {height} pixels; the limit is {self.max_side} a side")
        if max(width, height) > self.max_aspect * min(width, height):
            raise PictureTooCostly(
                f"the picture has {width} x {height} pixels; a side may be {self.max_aspect} times the other"
            )
        if not self.allow_scans(header):
            raise PictureTooCostly(
                f"the JPEG has {header.scans} scans of {width} x {height} pixels; the limits are {self.max_scans}, and "
                f"{self.max_scan_megapixels} megapixels over all of them; save it as baseline"
            )
        if header.frames > self.max_frames:
            raise PictureTooCostly(
                f"the picture is an animation of {header.frames} frames, the limit is {self.max_frames}; send one frame"
            )


DEFAULT_LIMITS = PictureLimits()

# Larger pictures are converted a strip at a time, because each step of it makes a copy.
MOST_CONVERTED, STRIP_PIXELS = 2**21, 2**18

# Bytes a pixel at the highest point of decoding and letterboxing, as measured (tests/service/pictures/test_memory.py).
# Pillow keeps 1, 2 or 4 a pixel; WebP's decoder has two canvases and gives a third away; RGB has 3.
_RGB = 3
_STORED = {1: 1, 2: 4, 3: 4, 4: 4}  # by channels
_STORED_WEBP, _STORED_WIDE_GREY = 13.5, 2
_CONVERTING = 11
_LETTERBOXING = 3 * _RGB
_COEFFICIENT = 2
# What does not grow with the picture: tables of decoders, rows, the squares of the network's input.
_FIXED = 2**21


def find_reduction(header: PictureHeader, size: int | None) -> int:
    """By what a JPEG's sides may be divided while it is decoded: 1, 2, 4 or 8, those that are computed with SIMD.

    Args:
        header: of the picture.
        size: side of the square that it will be letterboxed to, in pixels; its longer side keeps 1.5 times as many.
            None: it is needed whole.
    """
    if size is None or header.kind != "JPEG":
        return 1
    enough = size * 3 // 2
    return max(factor for factor in (1, 2, 4, 8) if factor == 1 or max(header.width, header.height) >= factor * enough)


def estimate_bytes(header: PictureHeader, size: int | None = None) -> int:
    """Say how much memory a picture needs at most while it is decoded, before it is; its file is not counted.

    Args:
        header: of the picture.
        size: side of the square that it is decoded for and letterboxed to, see `decode_for`; in pixels.
            None: it is decoded whole, see `decode`.

    Returns:
        Bytes beside those of the process as it is, the decoded picture among them. Not among them are copies of its
        file, of which there are two where it is not in order.
    """
    pixels = header.width * header.height
    decoded = pixels // find_reduction(header, size) ** 2 if header.is_usual else pixels
    copies = max(1 + (header.orientation != 1), 0 if size is None else _LETTERBOXING // _RGB)
    finishing = decoded * _RGB * copies
    if header.kind == "JPEG" and header.is_usual and header.channels <= _RGB:
        decoding = decoded * _RGB
    else:
        converted = decoded if decoded <= MOST_CONVERTED else STRIP_PIXELS
        decoding = int(decoded * (_stored(header) + _RGB)) + converted * _CONVERTING
    return _FIXED + header.coefficients * _COEFFICIENT + max(decoding, finishing)


def _stored(header: PictureHeader) -> float:
    """Bytes a pixel of a picture before it is RGB."""
    if header.kind == "WEBP":
        return _STORED_WEBP
    is_wide_grey = header.bits > 8 and header.channels == 1  # noqa: PLR2004 - bits of a byte
    return _STORED_WIDE_GREY if is_wide_grey else _STORED[header.channels]
