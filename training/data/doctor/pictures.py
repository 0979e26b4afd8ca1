"""What one picture or mask file is: its content's digest, its size, its look, and what is wrong with it."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from service.errors import RequestError
from service.pictures.imaging import UInt8Array, decode
from service.pictures.resizing import resize
from training.data.doctor.overlaps import THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH
from training.data.layouts.masks import stored_values
from training.data.layouts.outlines import Outlines

_EXIF_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = 1
# What Pillow raises for headers it cannot follow: a damaged PNG chunk is a SyntaxError, absurd sizes a bomb.
_PILLOW_ERRORS: Final = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_LUMA: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as in JPEG

Fault = tuple[str, str]  # code, and what came


@dataclass(frozen=True, slots=True, eq=False)
class PictureFacts:
    """One picture file.

    Attributes:
        sha256: hex digest of the file; empty if there is no reading it.
        size: (width, height) of the upright picture in pixels; None if it cannot be decoded.
        thumbnail: [8, 9] grey, 0..255, of the upright picture; None if it cannot be decoded.
        faults: what is wrong with it.
    """

    sha256: str
    size: tuple[int, int] | None
    thumbnail: UInt8Array | None
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True, eq=False)
class MaskFacts:
    """One mask file.

    Attributes:
        size: (width, height) in pixels; None if it cannot be decoded.
        pixels_by_value: [256] how many pixels hold each value; None if it stores no class ids.
        faults: what is wrong with it by itself.
    """

    size: tuple[int, int] | None
    pixels_by_value: tuple[int, ...] | None
    faults: tuple[Fault, ...]


def inspect_picture(path: Path) -> PictureFacts:
    """Read and decode a picture once, as training does; never raises for a faulty file."""
    try:
        body = path.read_bytes()
    except OSError as error:
        return PictureFacts("", None, None, (("unreadable-picture", f"{error.strerror}; wanted a picture"),))
    digest = hashlib.sha256(body).hexdigest()
    try:
        image = decode(body)
    except RequestError as error:
        return PictureFacts(digest, None, None, (_damage(body, str(error)),))
    small = resize(image, THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT) @ _LUMA
    height, width = image.shape[:2]
    return PictureFacts(digest, (width, height), small.round().astype(np.uint8), tuple(_oddities(body)))


def inspect_mask(path: Path | Outlines) -> MaskFacts:
    """Read a mask's stored values, without looking its palette up; never raises for a faulty file."""
    if isinstance(path, Outlines):
        drawn = path.draw()
        return MaskFacts((path.width, path.height), tuple(np.bincount(drawn.ravel(), minlength=256).tolist()), ())
    try:
        body = path.read_bytes()
    except OSError as error:
        return MaskFacts(None, None, (("unreadable-picture", f"{error.strerror}; wanted a palette PNG"),))
    try:
        with Image.open(io.BytesIO(body), formats=["PNG"]) as picture:
            mode, size, values = picture.mode, picture.size, np.asarray(picture)
    except _PILLOW_ERRORS as error:
        return MaskFacts(None, None, (_damage(body, f"{error}; wanted a palette PNG of class ids"),))
    try:
        stored = stored_values(mode, values)
    except ValueError as error:
        return MaskFacts(size, None, (("mask-not-palette", str(error)),))
    return MaskFacts(size, tuple(np.bincount(stored.ravel(), minlength=256).tolist()), ())


def _damage(body: bytes, sentence: str) -> Fault:
    """Tell a picture that is cut short, by the end marker it lacks, from one that cannot be read at all."""
    ends = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND"}
    end = next((marker for start, marker in ends.items() if body.startswith(start)), None)
    if end is not None and end not in body[-64:]:
        return "truncated-picture", f"{len(body)} bytes, without the end marker; wanted the whole picture"
    return "unreadable-picture", sentence


def _oddities(body: bytes) -> list[Fault]:
    """Name what a decodable picture has that its decoder had to convert."""
    faults = []
    with Image.open(io.BytesIO(body)) as picture:
        orientation = picture.getexif().get(_EXIF_ORIENTATION, _UPRIGHT)
        if picture.mode == "CMYK":
            faults.append(("cmyk-picture", "its mode is CMYK; wanted RGB"))
        # The header knows best: Pillow opens 16-bit RGB as 8-bit RGB. PNG, ISO/IEC 15948, 11.2.2: byte 24 is the depth.
        if picture.format == "PNG" and body[24] == 16:  # noqa: PLR2004 - bits a channel (PNG, IHDR)
            faults.append(("16-bit-picture", "16 bits a channel; wanted 8"))
        if orientation in range(2, 9):
            faults.append(("exif-rotated-picture", f"its EXIF orientation is {orientation}; wanted 1, upright"))
    return faults
