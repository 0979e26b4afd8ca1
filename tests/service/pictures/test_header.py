from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import (
    DamagedImage,
    EmptyBody,
    PictureTooCostly,
    RequestError,
    TooManyPixels,
    UnsupportedImage,
)
from service.pictures.header import PictureHeader, PictureLimits, check_picture, name_format, read_header, sniff_kind
from tests.attacks import bombs
from tests.service.fakes import GOLDEN, encode, make_picture

TEN_MB = 10_000_000
# The code takes a fifth of it on a machine that does nothing else.
ENOUGH_S = 0.1
PROGRESSIVE = b"\xff\xd8" + bombs.jpeg_frame(1000, 1000, code=0xC2) + bombs.jpeg_scan(1)
EXIF = Image.Exif()
EXIF[0x0112] = 6


def picture_of(mode: str, width: int = 37, height: int = 23) -> Image.Image:
    return Image.fromarray(make_picture(width, height)).convert(mode)


def make_16_bits() -> Image.Image:
    return Image.new("I;16", (37, 23), 40_000)


def animate(kind: str, frames: int, **options: Any) -> bytes:  # noqa: ANN401 - Pillow's
    pictures = [Image.new("RGB", (12, 9), (40 * number, 0, 0)) for number in range(frames)]
    return encode(pictures[0], kind, save_all=True, append_images=pictures[1:], **options)


ORDINARY: dict[str, bytes] = {
    "jpeg": encode(picture_of("RGB"), "JPEG"),
    "jpeg grey": encode(picture_of("L"), "JPEG"),
    "jpeg cmyk": encode(picture_of("CMYK"), "JPEG"),
    "jpeg progressive": encode(picture_of("RGB"), "JPEG", progressive=True),
    "jpeg progressive grey": encode(picture_of("L"), "JPEG", progressive=True),
    "jpeg progressive cmyk": encode(picture_of("CMYK"), "JPEG", progressive=True),
    "jpeg 4:2:0": encode(picture_of("RGB"), "JPEG", subsampling=2),
    "jpeg restarts": encode(picture_of("RGB"), "JPEG", restart_marker_blocks=1),
    "jpeg exif": encode(picture_of("RGB"), "JPEG", exif=EXIF),
    "jpeg icc": encode(picture_of("RGB"), "JPEG", icc_profile=bytes(200_000)),
    "jpeg comment": encode(picture_of("RGB"), "JPEG", comment=b"\xff\xda\xff\xc0" * 999),
    "jpeg 1 x 1": encode(picture_of("RGB", 1, 1), "JPEG"),
    **{f"png {mode}": encode(picture_of(mode)) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    "png 16 bits": encode(make_16_bits()),
    "png interlaced": bombs.interlaced_png(37, 23),
    "png exif": encode(picture_of("RGB"), exif=EXIF),
    "png icc": encode(picture_of("RGB"), icc_profile=bytes(1_000_000)),
    "png animated": animate("PNG", 5),
    "webp": encode(picture_of("RGB"), "WEBP"),
    "webp lossless": encode(picture_of("RGB"), "WEBP", lossless=True),
    "webp alpha": encode(picture_of("RGBA"), "WEBP"),
    "webp lossless alpha": encode(picture_of("LA"), "WEBP", lossless=True),
    "webp exif": encode(picture_of("RGB"), "WEBP", exif=EXIF),
    "webp icc": encode(picture_of("RGB"), "WEBP", icc_profile=bytes(999)),
    "webp animated": animate("WEBP", 4, lossless=True),
    "webp animated lossy": animate("WEBP", 3),
    "webp 1 x 1": encode(picture_of("RGB", 1, 1), "WEBP", lossless=True),
}


@pytest.mark.parametrize("body", ORDINARY.values(), ids=ORDINARY.keys())
def test_size_frames_and_orientation_are_those_that_pillow_finds(body: bytes) -> None:
    header = read_header(body)
    with Image.open(io.BytesIO(body)) as picture:
        assert (header.width, header.height) == picture.size
        assert header.kind == picture.format
        assert header.frames == getattr(picture, "n_frames", 1)
        assert header.orientation == picture.getexif().get(0x0112, 1)
    assert check_picture(body, PictureLimits(max_frames=5)) == header


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from(["JPEG", "PNG", "WEBP"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_size_is_read(width: int, height: int, kind: str, other: bool) -> None:
    options = {"JPEG": {"progressive": other}, "PNG": {}, "WEBP": {"lossless": other}}[kind]
    body = encode(Image.new("RGB", (width, height)), kind, **options)
    assert (read_header(body).width, read_header(body).height) == (width, height)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.jpg")), ids=lambda path: path.name)
def test_the_shipped_pictures_pass(path: Path) -> None:
    with Image.open(path) as picture:
        assert check_picture(path.read_bytes(), PictureLimits()) == PictureHeader("JPEG", *picture.size)


@pytest.mark.skipif("UNIHEAD_DATA" not in os.environ, reason="UNIHEAD_DATA names no sets of pictures")
def test_every_real_picture_passes_with_the_size_that_pillow_finds() -> None:
    paths = [
        path for path in Path(os.environ["UNIHEAD_DATA"]).rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"}
    ]
    assert len(paths) > 100
    for path in paths:
        header = check_picture(path.read_bytes(), PictureLimits())
        with Image.open(path) as picture:
            assert (header.width, header.height) == picture.size, path


def mutate(body: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Put a few bytes in place of others, or in between, at places that the length bounds."""
    for place, dropped, put in changes:
        at = place % (len(body) + 1)
        body = body[:at] + put + body[at + dropped :]
    return body


CHANGES = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 30), st.binary(max_size=6)), min_size=1, max_size=4)


@given(st.sampled_from(list(ORDINARY.values())), CHANGES)
@settings(max_examples=600, deadline=None)
def test_a_changed_picture_is_a_header_or_a_request_error_and_nothing_else(
    body: bytes, changes: list[tuple[int, int, bytes]]
) -> None:
    changed = mutate(body, changes)
    try:
        header = check_picture(changed, PictureLimits())
    except RequestError as error:
        assert type(error) in {EmptyBody, UnsupportedImage, DamagedImage, PictureTooCostly, TooManyPixels}  # noqa: PT017 - any of five, and nothing else
    else:
        assert header.width >= 1
        assert header.height >= 1
        assert 1 <= header.orientation <= 8


@pytest.mark.parametrize(
    "name", ["jpeg exif", "jpeg progressive", "png animated", "png P", "webp exif", "webp animated"]
)
def test_every_prefix_is_a_header_or_a_request_error(name: str) -> None:
    body = ORDINARY[name]
    whole = read_header(body)
    for length in range(len(body)):
        try:
            header = read_header(body[:length])
        except (EmptyBody, UnsupportedImage, DamagedImage):
            continue
        # The frames of an animation may lie beyond the cut; its size comes first.
        assert (header.width, header.height) == (whole.width, whole.height)


def test_no_bytes_are_an_empty_body() -> None:
    with pytest.raises(EmptyBody):
        sniff_kind(b"")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"GIF89a\x01\0\x01\0", "a GIF"),
        (b"II*\0\x08\0\0\0", "a TIFF"),
        (b"MM\0*\0\0\0\x08", "a TIFF"),
        (b"BM\x46\0\0\0\0\0\0\0\x36\0", "a BMP"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "a HEIC"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "an AVIF"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0", "an MP4 or QuickTime film"),
        (b"\xff\x0a\xfa\x7f", "a JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000"),
        (b"\xff\x4f\xff\x51\0\x2f", "a JPEG 2000"),
        (b"\0\0\x01\0\x01\0\x10\x10", "an ICO"),
        (b"8BPS\0\x01", "a Photoshop file"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "a PostScript file"),
        (b"P6\n4 4\n255\n", "a PNM"),
        (b"DDS |\0\0\0", "a DDS"),
        (b"qoif\0\0\0\x04", "a QOI"),
        (b"\x76\x2f\x31\x01\x02\0\0\0", "an OpenEXR"),
        (b"#?RADIANCE\n", "a Radiance HDR"),
        (b"\x8aMNG\r\n\x1a\n", "an MNG"),
        (b"\xd7\xcd\xc6\x9a\0\0", "a WMF"),
        (b"\x1a\x45\xdf\xa3\x9f", "a Matroska or WebM film"),
        (b"RIFF\x10\0\0\0AVI LIST", "an AVI film"),
        (b"PK\x03\x04\x14\0", "a ZIP"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn -->\n<!DOCTYPE svg>\n<svg/>", "an SVG"),
        (b"\n<!DOCTYPE html><html>", "HTML"),
        (b"data:image/png;base64,iVBORw0KGgo=", "base64 text of a picture"),
        (b"/9j/4AAQSkZJRgABAQAAAQABAAD/", "base64 text of a picture"),
        (b"https://example.org/cat.jpg", "a URL"),
    ],
)
def test_what_is_known_and_not_taken_is_named(body: bytes, name: str) -> None:
    assert name_format(body) == name
    with pytest.raises(UnsupportedImage, match=f"the body is {name}; convert it to JPEG, PNG or WebP"):
        read_header(body)


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "Settings > Camera > Formats > Most Compatible"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "a browser that shows it can copy it as PNG"),
        (b"GIF89a\x01\0\x01\0", "of an animation, one frame"),
        (b"BM\x46\0\0\0\0\0\0\0\x36\0", "PNG keeps every pixel of it"),
        (b"II*\0\x08\0\0\0", "of several pages, send one"),
    ],
)
def test_people_are_told_what_to_do_about_what_their_devices_write(body: bytes, hint: str) -> None:
    with pytest.raises(UnsupportedImage, match=hint):
        read_header(body)


@pytest.mark.parametrize("body", [b"hello", b"\xff\xd8", b"\x89PNG", b"RIFF1234WAVE", b"<note>svg</note>", bytes(99)])
def test_what_is_not_known_is_unsupported_all_the_same(body: bytes) -> None:
    assert name_format(body) is None
    with pytest.raises(UnsupportedImage, match="the first bytes are not those of a JPEG, PNG or WebP"):
        read_header(body)


def test_a_film_behind_a_progressive_jpeg_does_not_count_as_scans() -> None:
    photo = encode(make_picture(2000, 1500), "JPEG", progressive=True)
    with_film = photo + b"\0\0\0\x18ftypmp42" + (bytes(200) + b"\xff\xda") * 5000
    assert check_picture(with_film, PictureLimits()).scans == photo.count(b"\xff\xda")


def hostile_bodies() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Ten megabytes each that are slow to look through for who does not take care; made when they are needed."""
    fake = bombs.jpeg_segment(0xFE, b"\xff\xda" * 500)
    yield "jpeg of fill bytes", lambda: b"\xff\xd8" + b"\xff" * TEN_MB
    yield "jpeg of empty segments", lambda: b"\xff\xd8" + bombs.jpeg_segment(0xE0) * (TEN_MB // 4)
    yield "scan of fill bytes", lambda: PROGRESSIVE + b"\xff" * TEN_MB
    yield "scan of stuffed bytes", lambda: PROGRESSIVE + fake + b"\xff\0" * (TEN_MB // 2)
    yield "scan of ordinary density", lambda: PROGRESSIVE + fake + (b"\xff\0" + bytes(38)) * (TEN_MB // 40)
    yield "scans", lambda: PROGRESSIVE + bombs.jpeg_scan(1) * (TEN_MB // 10)
    yield "scan marks", lambda: PROGRESSIVE + b"\xff\xda" * (TEN_MB // 2)
    yield "comments between scans", lambda: PROGRESSIVE + bombs.jpeg_segment(0xFE, b"\xff\xda") * (TEN_MB // 6)
    yield "png of empty pixels", lambda: bombs.png(8, 8, pixels=bombs.png_chunk(b"IDAT") * (TEN_MB // 12))
    yield "png of empty texts", lambda: bombs.many_chunks_png(TEN_MB // 12)
    yield "png of one text", lambda: bombs.many_chunks_png(1, b"iTXt", b"k\0\1\0" + bytes(TEN_MB))
    yield "png of orientations", lambda: bombs.many_chunks_png(10, b"eXIf", bombs.exif_bomb(65_000, TEN_MB))
    yield "webp of frames", lambda: bombs.animated_webp(TEN_MB // 40)
    yield "webp of chunks", lambda: bombs.webp(bombs.vp8x(8, 8, 2), bombs.webp_chunk(b"junk", b"") * (TEN_MB // 8))
    yield "xml", lambda: b"<?xml" + b"<!--" * (TEN_MB // 4)
    yield "spaces", lambda: b" " * TEN_MB


@pytest.mark.parametrize(("name", "make"), list(hostile_bodies()), ids=[name for name, _ in hostile_bodies()])
def test_ten_megabytes_are_looked_through_in_milliseconds(name: str, make: Callable[[], bytes]) -> None:
    body = make()
    took_s = []
    for _ in range(3):
        started = time.perf_counter()
        with contextlib.suppress(RequestError):
            check_picture(body, PictureLimits())
        took_s.append(time.perf_counter() - started)
    assert min(took_s) < ENOUGH_S, name
