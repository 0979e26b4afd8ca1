"""Pictures as cameras and tools write them: out of order and whole, and the same with a piece missing."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from PIL import Image

from service.pictures.jpeg import START_OF_SCAN, walk_segments
from tests.attacks.bombs import jpeg_segment, png_chunk, vp8x, webp, webp_chunk
from tests.attacks.sampling import adobe
from tests.service.fakes import encode, make_picture

WIDTH, HEIGHT = 61, 47
PICTURE = Image.fromarray(make_picture(WIDTH, HEIGHT))
PLAIN = encode(PICTURE, "JPEG", quality=90)
RESTARTS = encode(PICTURE, "JPEG", quality=90, restart_marker_blocks=2)
PROGRESSIVE = encode(PICTURE, "JPEG", quality=90, progressive=True)
PNG = encode(PICTURE)
WEBP = encode(PICTURE, "WEBP", lossless=True)
_HEAD = 2 + len(jpeg_segment(0xE0, bytes(14)))  # up to behind JFIF
_IHDR = 8 + 25
_RESTART = b"\xff\xd1"
_END = b"\xff\xd9"
TURNED = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def behind_head(*segments: bytes, body: bytes = PLAIN) -> bytes:
    """Put segments, or what is none, behind the first segment of a JPEG."""
    return body[:_HEAD] + b"".join(segments) + body[_HEAD:]


def before(marker: bytes, stray: bytes, *, body: bytes, which: int = 0) -> bytes:
    """Put bytes before a marker that stands behind the header."""
    at = find_scan(body)
    for _ in range(which + 1):
        at = body.index(marker, at + 1)
    return body[:at] + stray + body[at:]


def find_scan(body: bytes) -> int:
    """Where the marker of a JPEG's first scan stands."""
    return next(start for code, start, _ in walk_segments(body, 2) if code == START_OF_SCAN)


def _middle(body: bytes) -> int:
    """Half way through the coded data of a JPEG."""
    return (find_scan(body) + len(body)) // 2


def change_scan(change: Callable[[bytes], bytes], body: bytes = PLAIN) -> bytes:
    """Change the header of a JPEG's first scan, of three channels."""
    start = find_scan(body)
    return body[:start] + change(body[start : start + 14]) + body[start + 14 :]


def icc(number: int, of: int, content: bytes = bytes(64)) -> bytes:
    return jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes((number, of)) + content)


def wrong(chunk: bytes) -> bytes:
    """A chunk of a PNG whose checksum is wrong."""
    return chunk[:-1] + bytes((chunk[-1] ^ 1,))


def exif(content: bytes) -> bytes:
    return jpeg_segment(0xE1, b"Exif\0\0" + content)


def all_restarts(stray: bytes) -> bytes:
    """Bytes before every restart, as webcams write them."""
    body = RESTARTS
    at = find_scan(body) + 14
    head, data = body[:at], body[at:]
    for number in range(8):
        mark = bytes((0xFF, 0xD0 + number))
        data = data.replace(mark, stray + mark)
    return head + data


def _lengthen(body: bytes) -> bytes:
    """A WebP whose container says that it is longer than it is."""
    return body[:4] + struct.pack("<I", len(body)) + body[8:]


# By name: what is written, and the bytes that show the same picture in order.
WHOLE_JPEGS: dict[str, tuple[bytes, bytes]] = {
    "scan parameters of zeros (Samsung)": (change_scan(lambda scan: scan[:-3] + bytes(3)), PLAIN),
    "no end": (PLAIN[:-2], PLAIN),
    "half an end": (PLAIN[:-1], PLAIN),
    "zeros in the place of the end": (PLAIN[:-2] + bytes(512), PLAIN),
    "padding behind the end": (PLAIN + bytes(512), PLAIN),
    "progressive without an end": (PROGRESSIVE[:-2], PROGRESSIVE),
    "two bytes between segments": (behind_head(b"\x12\x34"), PLAIN),
    "a zero between segments": (behind_head(b"\0"), PLAIN),
    "a stuffed FF between segments": (behind_head(b"\xff\0"), PLAIN),
    "fill bytes between segments": (behind_head(b"\xff" * 5), PLAIN),
    "3 bytes before the end": (before(_END, b"\x12\x34\x56", body=PLAIN), PLAIN),
    "300 bytes before the end": (before(_END, b"\x12\x34\xff\0" * 75, body=PLAIN), PLAIN),
    "2 bytes before a restart": (before(_RESTART, b"\x12\x34", body=RESTARTS), RESTARTS),
    "12 bytes before a restart": (before(_RESTART, bytes(range(0x11, 0x1D)), body=RESTARTS), RESTARTS),
    "20 bytes before every restart (webcams)": (all_restarts(b"\x12\xff\0\x34" * 5), RESTARTS),
    "20 bytes before a table between scans": (before(b"\xff\xc4", bytes(range(20)), body=PROGRESSIVE), PROGRESSIVE),
    "20 bytes before two scans": (
        before(b"\xff\xda", bytes(20), body=before(b"\xff\xda", bytes(range(20)), body=PROGRESSIVE, which=3)),
        PROGRESSIVE,
    ),
    "20 bytes between two scans and before the end": (
        before(_END, bytes(20), body=before(b"\xff\xc4", bytes(range(20)), body=PROGRESSIVE)),
        PROGRESSIVE,
    ),
    "a profile numbered from 0": (behind_head(icc(0, 1)), PLAIN),
    "half of a profile": (behind_head(icc(1, 2)), PLAIN),
    "a profile twice": (behind_head(icc(1, 1), icc(1, 1)), PLAIN),
    "an empty profile": (behind_head(icc(1, 1, b"")), PLAIN),
    "a profile of 0 pieces": (behind_head(icc(0, 0, b"")), PLAIN),
    "another version of JFIF": (PLAIN.replace(b"JFIF\0\1", b"JFIF\0\x09"), PLAIN),
    "transform 2 of three channels": (PLAIN[:2] + adobe(2) + PLAIN[_HEAD:], PLAIN),
    "transform 1 of three channels": (PLAIN[:2] + adobe(1) + PLAIN[_HEAD:], PLAIN),
    "transform 77 beside JFIF": (behind_head(adobe(77)), PLAIN),
    "a table behind the pixels": (before(_END, jpeg_segment(0xFE, b"comment"), body=PLAIN), PLAIN),
}
WHOLE_PNGS: dict[str, tuple[bytes, bytes]] = {
    "text with a wrong checksum": (PNG[:_IHDR] + wrong(png_chunk(b"tEXt", b"a\0b")) + PNG[_IHDR:], PNG),
    "profile with a wrong checksum": (
        PNG[:_IHDR] + wrong(png_chunk(b"iCCP", b"ICC\0\0" + zlib.compress(bytes(128)))) + PNG[_IHDR:],
        PNG,
    ),
    "transparency with a wrong checksum": (PNG[:_IHDR] + wrong(png_chunk(b"tRNS", bytes(6))) + PNG[_IHDR:], PNG),
    "unknown chunk with a wrong checksum": (PNG[:_IHDR] + wrong(png_chunk(b"prVt", b"1234")) + PNG[_IHDR:], PNG),
    "time that is none": (PNG[:_IHDR] + png_chunk(b"tIME", b"") + PNG[_IHDR:], PNG),
    "no end": (PNG[:-12], PNG),
    "an end without its checksum": (PNG[:-4], PNG),
    "a text that is cut short behind the pixels": (PNG[:-12] + png_chunk(b"tEXt", b"a\0b" * 9)[:20], PNG),
    "bytes behind the end": (PNG + b"junk" * 99, PNG),
}
WHOLE_WEBPS: dict[str, tuple[bytes, bytes]] = {
    "a container one byte too long": (WEBP[:4] + struct.pack("<I", len(WEBP) - 7) + WEBP[8:], WEBP),
    "a container two bytes too long": (WEBP[:4] + struct.pack("<I", len(WEBP) - 6) + WEBP[8:], WEBP),
    "a container of four gigabytes": (WEBP[:4] + b"\xff" * 4 + WEBP[8:], WEBP),
    "no padding behind the last chunk": (
        webp(vp8x(WIDTH, HEIGHT, 0), WEBP[12:], b"junk" + struct.pack("<I", 3) + b"abc"),
        WEBP,
    ),
    "a last chunk that is cut short": (
        webp(vp8x(WIDTH, HEIGHT, 0), WEBP[12:], b"junk" + struct.pack("<I", 300) + b"abc"),
        WEBP,
    ),
}
# By name: what lacks a piece, or cannot be believed.
DAMAGED: dict[str, bytes] = {
    "half a JPEG": PLAIN[: _middle(PLAIN)],
    "a JPEG without its last 100 bytes": PLAIN[:-100],
    "a JPEG without its last 3 bytes": PLAIN[:-3],
    "half a JPEG with an end": PLAIN[: _middle(PLAIN)] + _END,
    "half a progressive JPEG": PROGRESSIVE[: _middle(PROGRESSIVE)],
    "a restart is lost": RESTARTS.replace(_RESTART, b"", 1),
    "a restart in place of another": RESTARTS.replace(_RESTART, b"\xff\xd5", 1),
    "a piece between restarts is cut, another too long": before(
        b"\xff\xd0",
        bytes(9),
        body=RESTARTS[: RESTARTS.index(b"\xff\xd2") - 4] + RESTARTS[RESTARTS.index(b"\xff\xd2") :],
    ),
    "the last scan is cut, another too long": before(b"\xff\xc4", bytes(20), body=PROGRESSIVE[:-9]),
    "Samsung's and cut": change_scan(lambda scan: scan[:-3] + bytes(3))[:-40],
    "half a PNG": PNG[: len(PNG) // 2],
    "pixels of a PNG with a wrong checksum": PNG[:-13] + bytes((PNG[-13] ^ 1,)) + PNG[-12:],
    "a size with a wrong checksum": PNG[: _IHDR - 1] + bytes((PNG[_IHDR - 1] ^ 1,)) + PNG[_IHDR:],
    "half a WebP": WEBP[: len(WEBP) // 2],
    "a WebP without its last bytes": WEBP[:-3],
    "a WebP cut before it says which way up it is": webp(
        vp8x(WIDTH, HEIGHT, 8), WEBP[12:], webp_chunk(b"EXIF", TURNED)
    )[: 12 + 18 + len(WEBP[12:])],
}
# By name: what is turned by a quarter, whatever says so.
TURNED_BY_A_QUARTER: dict[str, bytes] = {
    "an empty EXIF before the real one": behind_head(exif(b""), exif(TURNED)),
    "XMP alone": behind_head(jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)),
    "XMP beside EXIF that says nothing": behind_head(
        jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP), exif(b"MM\0*\0\0\0\x08\0\0")
    ),
    "PNG: an empty EXIF before the real one": PNG[:_IHDR]
    + png_chunk(b"eXIf")
    + png_chunk(b"eXIf", TURNED)
    + PNG[_IHDR:],
    "PNG: XMP": PNG[:_IHDR] + png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP) + PNG[_IHDR:],
    "PNG: XMP, packed": (
        PNG[:_IHDR] + png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)) + PNG[_IHDR:]
    ),
    "PNG: EXIF as ImageMagick wrote it": PNG[:_IHDR]
    + png_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n      32\n" + (b"Exif\0\0" + TURNED).hex().encode() + b"\n")
    + PNG[_IHDR:],
    "WebP: XMP": webp(vp8x(WIDTH, HEIGHT, 4), WEBP[12:], webp_chunk(b"XMP ", XMP)),
    "WebP: EXIF, and a container that is too long": _lengthen(
        webp(vp8x(WIDTH, HEIGHT, 8), WEBP[12:], webp_chunk(b"EXIF", TURNED))
    ),
}
