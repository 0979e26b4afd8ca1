"""Small bodies that would cost much, and large ones that are slow to look through; plain bytes, the same every time."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

_PALETTE = 3
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def jpeg_segment(code: int, content: bytes = b"") -> bytes:
    return b"\xff" + bytes([code]) + struct.pack(">H", len(content) + 2) + content


def jpeg_frame(width: int, height: int, *, code: int = 0xC0, channels: int = 3, bits: int = 8) -> bytes:
    parts = b"".join(bytes([number + 1, 0x11, 0]) for number in range(channels))
    return jpeg_segment(code, struct.pack(">BHHB", bits, height, width, channels) + parts)


def jpeg_scan(channels: int = 3, data: bytes = b"") -> bytes:
    parts = b"".join(bytes([number + 1, 0]) for number in range(channels))
    return jpeg_segment(0xDA, bytes([channels]) + parts + b"\x00\x3f\x00") + data


def jpeg(*pieces: bytes) -> bytes:
    """Put segments between the marks of begin and end."""
    return b"\xff\xd8" + b"".join(pieces) + b"\xff\xd9"


def scan_bomb(width: int = 4000, height: int = 4000, repeats: int = 1000) -> bytes:
    """A progressive JPEG of few bytes whose last scan comes again and again; each goes over all pixels."""
    file = io.BytesIO()
    Image.new("L", (width, height), 128).save(file, "JPEG", progressive=True)
    body = file.getvalue()
    last = body[body.rindex(b"\xff\xda") : -2]
    return body[:-2] + last * repeats + body[-2:]


def png_chunk(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2, pixels: bytes | None = None) -> bytes:
    """A PNG with chunks before its pixels; these are black, or none at all where `pixels` is empty."""
    if pixels is None:
        samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        chunks += (png_chunk(b"PLTE", bytes(6)),) if colour == _PALETTE else ()
        pixels = png_chunk(b"IDAT", zlib.compress(bytes((1 + (width * samples * depth + 7) // 8) * height)))
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return _PNG_SIGNATURE + head + b"".join(chunks) + pixels + png_chunk(b"IEND")


def interlaced_png(width: int, height: int) -> bytes:
    """A grey PNG in the seven passes of Adam7; black."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b""
    for left, top, across, down in passes:
        columns = -(-max(0, width - left) // across)
        if columns:
            rows += bytes(1 + columns) * -(-max(0, height - top) // down)
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1))
    return _PNG_SIGNATURE + head + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND")


def pixel_bomb_png(width: int, height: int) -> bytes:
    """A PNG that is one colour: a thousandth of a byte a pixel."""
    row = bytes(1 + width * 3)
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return png(width, height, pixels=png_chunk(b"IDAT", packed))


def packed_png(name: bytes, unpacked: int, *, count: int = 1, behind: bool = False) -> bytes:
    """A small PNG with iCCP, zTXt or iTXt chunks of so many bytes each.

    Args:
        name: of the chunk.
        unpacked: bytes of each.
        count: chunks.
        behind: they come after the pixels.
    """
    packed = zlib.compress(bytes(unpacked), 9)
    head = b"key\0\1\0\0\0" if name == b"iTXt" else b"key\0\0"
    chunks = png_chunk(name, head + packed) * count
    plain = png(8, 8)
    at = plain.index(b"IEND" if behind else b"IDAT") - 4
    return plain[:at] + chunks + plain[at:]


def many_chunks_png(count: int, name: bytes = b"tEXt", content: bytes = b"") -> bytes:
    return png(8, 8, png_chunk(name, content) * count)


def apng(frames: int) -> bytes:
    """A PNG that says it is an animation, and of which no decoder has to read more than that."""
    return png(8, 8, png_chunk(b"acTL", struct.pack(">II", frames, 0)))


def webp_chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) & 1)


def webp(*chunks: bytes) -> bytes:
    content = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def vp8l(width: int, height: int) -> bytes:
    """A lossless bitstream of one colour, whatever its size: the smallest picture for its pixels that there is."""
    bits = width - 1 | (height - 1) << 14
    # No transforms, no colour cache, no meta prefix codes, then five prefix codes of one symbol each: 0.
    return b"\x2f" + struct.pack("<I", bits) + bytes([0x88, 0x88, 0x08])


def pixel_bomb_webp(width: int, height: int) -> bytes:
    return webp(webp_chunk(b"VP8L", vp8l(width, height)))


def vp8x(width: int, height: int, flags: int) -> bytes:
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size)


def anmf(width: int, height: int, *, left: int = 0, top: int = 0, inside: bytes | None = None) -> bytes:
    places = (left // 2, top // 2, width - 1, height - 1, 100)
    head = b"".join(struct.pack("<I", value)[:3] for value in places) + b"\0"
    return webp_chunk(b"ANMF", head + (webp_chunk(b"VP8L", vp8l(width, height)) if inside is None else inside))


def animated_webp(frames: int, width: int = 16, height: int = 16) -> bytes:
    return webp(vp8x(width, height, 0x02), webp_chunk(b"ANIM", bytes(6)), anmf(width, height) * frames)


def exif_bomb(entries: int, size: int) -> bytes:
    """EXIF whose first directory has many entries, each of which points at the same many bytes."""
    table = b"".join(struct.pack("<HHII", 0x8000 + entry % 0x7000, 7, size, 0) for entry in range(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", entries) + table + bytes(4)
