"""What libjpeg-turbo decodes, by simplejpeg: every JPEG that is sampled in a usual way, if all of it is there.

A picture is whole when every MCU of every scan that its file begins was decoded, and each channel had a scan.
libjpeg goes on where that is not so, and warns; but it warns of much besides, and its first warning hides all others.
So a JPEG is decoded as it came, with warnings as errors; where that fails it is put in order (`mending`), which
leaves bytes behind coded data as the one warning that is none of damage, and these are looked into one by one.
"""

from __future__ import annotations

import re

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from service.pictures.limits import MOST_CONVERTED, STRIP_PIXELS, PictureHeader, find_reduction
from service.pictures.mending import Parts

_CMYK_CHANNELS = 4
# What libjpeg says of bytes that are not needed, and of the marker behind them.
_STRAY = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_END = "d9"
# Scans times pixels that are decoded to find stray bytes: a second or so.
_MOST_WORK = 1_600_000_000


def decode_by_turbo(body: bytes, header: PictureHeader, size: int | None, *, strict: bool = True) -> NDArray[np.uint8]:
    """Decode a picture as it is stored.

    Args:
        body: the picture.
        header: of it.
        size: side of the square that it is decoded for, see `find_reduction`; None: it is needed whole.
        strict: any warning of the decoder is an error.

    Returns:
        [h, w, 3] RGB.

    Raises:
        ValueError: with the first thing that the decoder said.
    """
    height, width, _, _ = simplejpeg.decode_jpeg_header(body)
    if (width, height) != (header.width, header.height):
        raise ValueError(f"the decoder sees {width} x {height} pixels, the header {header.width} x {header.height}")
    reduction = find_reduction(header, size)
    least = {"min_width": -(-width // reduction), "min_height": -(-height // reduction)} if reduction > 1 else {}
    if header.channels == _CMYK_CHANNELS:
        return _mix_inks(simplejpeg.decode_jpeg(body, colorspace="CMYK", strict=strict, **least))
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(body, colorspace="RGB", strict=strict, **least)
    return pixels


def decode_odd_jpeg(parts: Parts, header: PictureHeader, size: int | None) -> NDArray[np.uint8]:
    """Decode a picture whose bytes are not in order, if it is whole.

    Args:
        parts: of the picture.
        header: of it.
        size: see `decode_by_turbo`.

    Returns:
        [h, w, 3] RGB.

    Raises:
        ValueError: a piece of it is missing, or cannot be decoded.
    """
    try:
        return decode_by_turbo(parts.write(), header, size)
    except ValueError as error:
        if not parts.is_single:
            parts = _drop_stray_bytes(parts, header)
        elif _read_stray(error)[1] != _END:  # what stands before the end, stands behind all pixels
            _check_pieces(parts)
    return decode_by_turbo(parts.write(), header, size, strict=not parts.is_single)


def _read_stray(error: ValueError) -> tuple[int, str]:
    """How many stray bytes the decoder found first, and the marker behind them; raises what is another complaint."""
    found = _STRAY.search(str(error))
    if found is None:
        raise error
    return int(found[1]), found[2]


def _check_pieces(parts: Parts) -> None:
    """Decode what lies between two restarts, each for itself."""
    for body in parts.write_pieces():
        try:
            _try(body)
        except ValueError as error:
            if _read_stray(error)[1] != _END:
                raise


def _drop_stray_bytes(parts: Parts, header: PictureHeader) -> Parts:
    """Leave out the bytes behind each scan's data: find the first scan that has some, mend it, and begin anew."""
    work, sound = 0, 0
    while sound < len(parts.scans):
        low, high, found = sound, len(parts.scans), None
        tried = high
        while tried > low:
            work += tried * header.width * header.height
            if work > _MOST_WORK:
                raise ValueError("stray bytes stand in more of its scans than can be looked for")
            try:
                _try(parts.write(tried))
                low = tried
            except ValueError as error:
                high, found = tried, error
            tried = (low + high) // 2
        if found is None:
            break
        count, marker = _read_stray(found)
        if marker != _END:
            raise found
        parts, sound = parts.without_end(high - 1, count), high - 1
    return parts


def _try(body: bytes) -> None:
    """Decode at the least size: warnings are the same at each."""
    simplejpeg.decode_jpeg(body, colorspace="GRAY", min_width=1, min_height=1)


def _mix_inks(inks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[h, w, 4] inks to [h, w, 3] RGB, as Pillow does it; Adobe stores inks inverted, and nobody else stores any."""
    height, width, _ = inks.shape
    if height * width <= MOST_CONVERTED:
        return np.asarray(_mix(inks))
    pixels, rows = np.empty((height, width, 3), dtype=np.uint8), STRIP_PIXELS // width
    for top in range(0, height, rows):
        pixels[top : top + rows] = np.asarray(_mix(inks[top : top + rows]))
    return pixels


def _mix(inks: NDArray[np.uint8]) -> Image.Image:
    return Image.frombuffer("CMYK", inks.shape[1::-1], inks, "raw", "CMYK;I", 0, 1).convert("RGB")
