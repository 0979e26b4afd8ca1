"""What a body is and how large its picture would be, from its bytes alone, before any decoder sees them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from service.errors import EmptyBody, UnsupportedImage
from service.pictures.jpeg import count_scans, read_jpeg_header
from service.pictures.limits import Kind, PictureHeader, PictureLimits
from service.pictures.png import read_png_header
from service.pictures.webp import read_webp_header

__all__ = ["Kind", "PictureHeader", "PictureLimits", "check_picture", "name_format", "read_header", "sniff_kind"]

_READERS: dict[Kind, Callable[[bytes], PictureHeader]] = {
    "JPEG": read_jpeg_header,
    "PNG": read_png_header,
    "WEBP": read_webp_header,
}
# How others begin, for the sentence of a refusal; the more special one first.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (rb"GIF8[79]a", "a GIF"),
    (rb"(II|MM)(\*\x00|\x00\*|\+\x00|\x00\+)", "a TIFF"),
    (rb"BM.{4}\x00{4}", "a BMP"),
    (rb".{4}ftyp(hei[cxms]|hev[cx]|m[is]f1)", "a HEIC"),
    (rb".{4}ftypavi[fs]", "an AVIF"),
    (rb".{4}ftyp", "an MP4 or QuickTime film"),
    (rb"\x00{3}\x0cJXL |\xff\x0a", "a JPEG XL"),
    (rb"\x00{3}\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000"),
    (rb"\x00\x00[\x01\x02]\x00", "an ICO"),
    (rb"8BPS", "a Photoshop file"),
    (rb"%PDF-", "a PDF"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file"),
    (rb"P[1-7]\s", "a PNM"),
    (rb"DDS ", "a DDS"),
    (rb"qoif", "a QOI"),
    (rb"\x76\x2f\x31\x01", "an OpenEXR"),
    (rb"#\?RADIANCE", "a Radiance HDR"),
    (rb"\x8a[M]NG|\x8bJNG", "an MNG"),
    (rb"\xd7\xcd\xc6\x9a", "a WMF"),
    (rb"\x1a\x45\xdf\xa3", "a Matroska or WebM film"),
    (rb"RIFF.{4}AVI ", "an AVI film"),
    (rb"PK(\x03\x04|\x05\x06)", "a ZIP"),
    (rb"\x1f\x8b", "gzip"),
    (rb"(?i:\s*<(!doctype html|html))", "HTML"),
    (rb"(?i:(\xef\xbb\xbf)?\s*(<svg|<[?!].{0,1500}?<svg))", "an SVG"),
    (rb"data:image/|/9j/|iVBORw0KGgo|UklGR", "base64 text of a picture"),
    (rb"https?://", "a URL"),
)
# What people can do about those that their devices write.
_HINTS = {
    "a HEIC": " (an iPhone takes JPEGs with Settings > Camera > Formats > Most Compatible)",
    "an AVIF": " (a browser that shows it can copy it as PNG)",
    "a GIF": " (of an animation, one frame)",
    "a BMP": " (PNG keeps every pixel of it)",
    "a TIFF": " (PNG keeps every pixel of it; of several pages, send one)",
}
_OTHER = [(re.compile(pattern, re.DOTALL), name) for pattern, name in _OTHERS]
_BEGINNING = 2048


def sniff_kind(body: bytes) -> Kind:
    """Name the picture format by its first bytes.

    Raises:
        EmptyBody: there are no bytes.
        UnsupportedImage: the bytes begin like none of the three; says like what, where that is known.
    """
    if body.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if body.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        return "WEBP"
    if not body:
        raise EmptyBody("the request has no body; send the picture's bytes, or multipart with a field named `file`")
    name = name_format(body)
    if name is None:
        raise UnsupportedImage(
            "the first bytes are not those of a JPEG, PNG or WebP picture; convert it and send it again"
        )
    hint = _HINTS.get(name, "")
    raise UnsupportedImage(f"the body is {name}; convert it to JPEG, PNG or WebP and send the bytes of that{hint}")


def name_format(body: bytes) -> str | None:
    """Name what is known and not taken, such as "a GIF"; None for everything else."""
    beginning = body[:_BEGINNING]
    return next((name for pattern, name in _OTHER if pattern.match(beginning)), None)


def read_header(body: bytes) -> PictureHeader:
    """Read a picture's header; takes milliseconds at most, whatever the bytes are.

    Raises:
        EmptyBody, UnsupportedImage: it is no JPEG, PNG or WebP.
        DamagedImage: no decoder here takes it.
        PictureTooCostly: it has more segments, chunks or packed texts than any picture.
    """
    return _READERS[sniff_kind(body)](body)


def check_picture(body: bytes, limits: PictureLimits) -> PictureHeader:
    """Read a picture's header and hold it against limits.

    Raises:
        EmptyBody, UnsupportedImage, DamagedImage, PictureTooCostly: see `read_header`.
        TooManyPixels, PictureTooCostly: the limits refuse it.
    """
    header = read_header(body)
    if header.kind == "JPEG" and not limits.allow_scans(header):
        # What looked like scans may lie in a film behind the picture, as phones append them.
        header = dataclasses.replace(header, scans=count_scans(body) or header.scans)
    limits.check(header)
    return header
