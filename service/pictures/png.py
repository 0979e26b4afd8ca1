"""The header of a PNG (W3C, third edition), and what its chunks would unpack to."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from service.errors import DamagedImage, PictureTooCostly
from service.pictures.exif import read_orientation
from service.pictures.limits import MOST_COUNTED, PictureHeader

_SIGNATURE_BYTES = 8
_FIRST = b"\0\0\0\rIHDR"
_IHDR = struct.Struct(">IIBBBBB")
_CHUNK = struct.Struct(">I4s")
_NAME = re.compile(rb"\w{4}")  # what decoders take for one; the standard has letters only
_CHECKSUM = 4
_AROUND = _CHUNK.size + _CHECKSUM
_PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT"})
_XMP = b"XML:com.adobe.xmp\0"
_OLD_EXIF = b"Raw profile type exif\0"
_MOST_OLD_EXIF = 2**18  # digits of twice the 64 kB that EXIF may have in a JPEG
_MOST_SIDE = 2**31 - 1
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}  # by colour type
# Encoders cut pixels into pieces of 8 kB; other chunks are a dozen.
_MOST_OTHER_CHUNKS = 1000
_TEXTS = frozenset({b"iCCP", b"zTXt", b"iTXt", b"tEXt"})
# Decoders take as much for each of them. Unpacking it takes 2 ms, of which the event loop has no more.
_MOST_UNPACKED = 2**20
_BROKEN_COUNTS = _MOST_UNPACKED // 4  # a few are found in the wild, and should not stand in a picture's way
_MOST_RATIO = 1032  # of deflate


def read_png_header(body: bytes) -> PictureHeader:
    """Walk the chunks; profiles and texts are unpacked no further than to see that they are small.

    Args:
        body: begins like a PNG; what follows may be anything.

    Raises:
        DamagedImage: no decoder takes it.
        PictureTooCostly: there are too many chunks, or they unpack to too much.
    """
    if body[_SIGNATURE_BYTES : _SIGNATURE_BYTES + len(_FIRST)] != _FIRST:
        raise _damaged("it does not begin with its size")
    try:
        width, height, depth, colour, *methods = _IHDR.unpack_from(body, _SIGNATURE_BYTES + len(_FIRST))
    except struct.error:
        raise _damaged("it is cut short before its pixels") from None
    if not 1 <= width <= _MOST_SIDE or not 1 <= height <= _MOST_SIDE:
        raise _damaged(f"its size is {width} x {height}")
    if depth not in _DEPTHS.get(colour, ()) or methods not in ([0, 0, 0], [0, 0, 1]):
        raise _damaged(f"it has {depth} bits of colour type {colour}, methods {methods}")
    frames, channels, orientation = _read_others(body, _CHANNELS[colour])
    return PictureHeader(
        "PNG", width, height, frames=frames, orientation=orientation, channels=channels, bits=max(depth, 8)
    )


def _read_others(body: bytes, channels: int) -> tuple[int, int, int]:
    """Frames, channels and orientation, out of the chunks that hold no pixels."""
    frames, unpacked, exif, old_exif, xmp = 1, 0, b"", b"", b""
    for name, start, length in _walk(body):
        if name in _TEXTS:
            text = _unpack(name, body, start, start + length, at_most=_MOST_UNPACKED + 1 - unpacked)
            unpacked += text.counts
            if unpacked > _MOST_UNPACKED:
                raise PictureTooCostly(
                    f"the PNG has texts or colour profiles of more than {_MOST_UNPACKED} bytes when unpacked; "
                    "save it without metadata"
                )
            if name == b"iTXt" and body.startswith(_XMP, start):
                xmp = xmp or text.content
            elif name != b"iCCP" and body.startswith(_OLD_EXIF, start):
                old_exif = old_exif or _read_old_exif(text.content)
        elif name == b"tRNS":
            channels = 4
        elif name == b"acTL":
            frames = max(frames, int.from_bytes(body[start : start + 4], "big"))
        elif name == b"eXIf":
            exif = exif or body[start : start + length]
    return frames, channels, read_orientation(exif or old_exif, xmp)


def reduce_png(body: bytes) -> bytes:
    """Keep what the pixels are made of and nothing else, so that whatever is wrong with the rest meets no decoder.

    Args:
        body: a PNG whose header has been read.

    Returns:
        The same bytes, or a PNG without the mark of its end: decoders stop when all pixels are there.

    Raises:
        DamagedImage: a checksum of the pixels is wrong, which Pillow does not look at; one that is cut off is not.
    """
    view, dropped = memoryview(body), False
    kept: list[bytes | memoryview] = [body[:_SIGNATURE_BYTES]]
    for name, start, length in _chunks(body):
        if name == b"IEND":
            break
        dropped = dropped or name not in _PIXELS
        if name in _PIXELS or name == b"tRNS":
            end = start + length
            checksum = body[end : end + _CHECKSUM]
            is_sound = zlib.crc32(view[start - len(name) : end]) == int.from_bytes(checksum, "big")
            if name in _PIXELS and not is_sound and len(checksum) == _CHECKSUM:
                raise _damaged("a checksum of its pixels is wrong")
            if name in _PIXELS or is_sound:
                kept.append(view[start - _CHUNK.size : end + _CHECKSUM])
    return b"".join(kept) if dropped else body


def _chunks(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length of each chunk, as far as there is something of it; ends after too many of them."""
    position = _SIGNATURE_BYTES
    for _ in range(MOST_COUNTED + 2):
        if position + _CHUNK.size > len(body):
            return
        length, name = _CHUNK.unpack_from(body, position)
        yield name, position + _CHUNK.size, length
        position += _AROUND + length


def _walk(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length of each chunk that holds no pixels, from behind the first to the end of the picture."""
    others, has_pixels = 0, False
    for number, (name, start, length) in enumerate(_chunks(body)):
        if number > MOST_COUNTED:
            raise PictureTooCostly(f"the PNG has more than {MOST_COUNTED} chunks")
        if name == b"IEND" or (has_pixels and not _NAME.fullmatch(name)):
            break  # what is broken behind the pixels, decoders do not read either
        if name == b"IDAT":
            has_pixels = True
        elif number:
            if name == b"IHDR" or (name == b"fdAT" and not has_pixels) or not _NAME.fullmatch(name):
                raise _damaged(f"it has a chunk {name!r} where none may be")
            others += 1
            if others > _MOST_OTHER_CHUNKS:
                raise PictureTooCostly(f"the PNG has more than {_MOST_OTHER_CHUNKS} chunks besides its pixels")
            yield name, start, length
    if not has_pixels:
        raise _damaged("it is cut short before its pixels")


class _Unpacked(NamedTuple):
    """What a profile or a text unpacks to, as far as that is looked at, and as how many bytes it counts."""

    content: bytes
    counts: int


def _unpack(name: bytes, body: bytes, start: int, end: int, *, at_most: int) -> _Unpacked:
    start = _behind_zero(body, start, end)
    if name == b"tEXt":
        return _Unpacked(body[start:end], 0)
    if name == b"iTXt":
        is_packed = body[start : start + 1] != b"\0"
        start = _behind_zero(body, _behind_zero(body, start + 2, end), end) - 1
        if not is_packed:
            return _Unpacked(body[start + 1 : end], 0)
    packed = memoryview(body)[start + 1 : end]
    try:
        content = zlib.decompressobj().decompress(packed, at_most)
    except zlib.error:  # decoders leave it out, after having unpacked nobody knows how much
        return _Unpacked(b"", min(len(packed) * _MOST_RATIO, _BROKEN_COUNTS))
    return _Unpacked(content, len(content))


def _read_old_exif(text: bytes) -> bytes:
    """EXIF as ImageMagick wrote it before there was a chunk for it: three lines, then hexadecimal digits."""
    digits = b"".join(text[:_MOST_OLD_EXIF].split(b"\n")[3:])
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""


def _behind_zero(body: bytes, start: int, end: int) -> int:
    """Where the text ends that begins at `start`; `end` if it does not."""
    at = body.find(b"\0", start, end)
    return at + 1 if at >= 0 else end


def _damaged(how: str) -> DamagedImage:
    return DamagedImage(f"the PNG picture is damaged: {how}")
