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
    """

    kind: Kind
    width: int
    height: int
    frames: int = 1
    scans: int = 1
    orientation: int = 1


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
