"""Pictures of a release decoded as the service does, and made smaller."""

from __future__ import annotations

import simplejpeg

from service.errors import RequestError
from service.pictures.imaging import UInt8Array, decode, fit
from service.pictures.resizing import resize
from training.data.prepare.official import Size
from training.data.prepare.releases import PrepareError

_QUALITY = 90


def measure(body: bytes, name: str) -> Size:
    """Size of a picture once upright.

    Raises:
        PrepareError: it cannot be decoded.
    """
    height, width, _ = _decode(body, name).shape
    return Size(width, height)


def shrink(body: bytes, name: str, max_side: int) -> tuple[bytes, Size]:
    """Re-encode a picture whose longer side exceeds `max_side` px as an upright JPEG; others stay byte for byte.

    Raises:
        PrepareError: it cannot be decoded.
    """
    pixels = _decode(body, name)
    height, width, _ = pixels.shape
    if max(width, height) <= max_side:
        return body, Size(width, height)
    place = fit(width, height, max_side)
    small = resize(pixels, place.resized_width, place.resized_height)
    encoded: bytes = simplejpeg.encode_jpeg(small, quality=_QUALITY, colorspace="RGB")
    return encoded, Size(place.resized_width, place.resized_height)


def _decode(body: bytes, name: str) -> UInt8Array:
    try:
        return decode(body)
    except RequestError as error:
        raise PrepareError(f"{name}: {error}; unpack or download the release again") from error
