"""What Pillow decodes: PNG, WebP, and the JPEGs that simplejpeg does not take; always one plugin, asked directly."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from service.pictures.limits import MOST_CONVERTED, STRIP_PIXELS, Kind, PictureHeader
from service.pictures.mending import Parts

# No other plugin can answer, and nothing depends on Pillow's own limit of pixels.
_PLUGINS: dict[Kind, Callable[[io.BytesIO], Image.Image]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
}
_ALPHA_BACKGROUND = (255, 255, 255)
# Behind coded data: if the picture changes with what stands there, some of it was missing.
_PADDINGS = (b"\xff\x00" * 64, b"\x5a" * 64)


def decode_by_pillow(body: bytes, header: PictureHeader) -> NDArray[np.uint8]:
    """Decode a picture as it is stored.

    Returns:
        [height, width, 3] RGB.

    Raises:
        Exception: of nearly any type, on bytes that are damaged.
    """
    with _open(body, header) as picture:
        return _to_rgb(picture, header)


def decode_unusual_jpeg(parts: Parts, header: PictureHeader) -> NDArray[np.uint8]:
    """Decode a JPEG that is sampled as simplejpeg does not know it, if it is whole.

    Pillow fills what is missing of coded data with grey, and says nothing. So the picture is decoded with other bytes
    behind each piece of them too: they change nothing where all was there.

    Returns:
        [height, width, 3] RGB.

    Raises:
        Exception: of nearly any type, on bytes that are damaged.
    """
    with _open(parts.write(), header) as picture:
        digest, pixels = _digest(picture), _to_rgb(picture, header)
    for padding in _PADDINGS:
        with _open(parts.write(padding=padding), header) as picture:
            if _digest(picture) != digest:
                raise ValueError("some of its coded data are missing")
    return pixels


def _open(body: bytes, header: PictureHeader) -> Image.Image:
    picture = _PLUGINS[header.kind](io.BytesIO(body))
    if picture.size != (header.width, header.height):
        raise ValueError(f"Pillow sees {picture.size} pixels, the header {header.width} x {header.height}")
    return picture


def _digest(picture: Image.Image) -> bytes:
    digest = hashlib.blake2b()
    for _, _, strip in _strips(picture):
        digest.update(strip.tobytes())
    return digest.digest()


def _to_rgb(picture: Image.Image, header: PictureHeader) -> NDArray[np.uint8]:
    picture.load()
    shade = picture.info.get("transparency")
    if picture.mode == "RGB" and header.bits > 8 and isinstance(shade, tuple):  # noqa: PLR2004 - bits of a byte
        picture.info["transparency"] = tuple(value >> 8 for value in shade)
    if picture.width * picture.height <= MOST_CONVERTED:
        return np.asarray(_convert(picture))
    pixels = np.empty((header.height, header.width, 3), dtype=np.uint8)
    for top, bottom, strip in _strips(picture):
        pixels[top:bottom] = np.asarray(_convert(strip))
    return pixels


def _strips(picture: Image.Image) -> Iterator[tuple[int, int, Image.Image]]:
    height = max(1, STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, height):
        bottom = min(top + height, picture.height)
        yield top, bottom, picture.crop((0, top, picture.width, bottom))


def _convert(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        return _convert_wide_grey(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, (*_ALPHA_BACKGROUND, 255)), picture).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _convert_wide_grey(picture: Image.Image) -> Image.Image:
    """16-bit grey: keep the upper byte; convert("RGB") would clip at 255, and forget the shade that is transparent."""
    wide = np.asarray(picture).astype(np.uint32)
    grey = (wide >> 8).clip(0, 255).astype(np.uint8)
    shade = picture.info.get("transparency")
    if isinstance(shade, int):
        grey[wide == shade] = _ALPHA_BACKGROUND[0]
    return Image.fromarray(grey).convert("RGB")
