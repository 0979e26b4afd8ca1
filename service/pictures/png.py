"""The header of a PNG (W3C, third edition), and what its chunks would unpack to."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from service.errors import DamagedImage, PictureTooCostly
from service.pictures.exif import UPRIGHT, read_orientation
from service.pictures.limits import MOST_COUNTED, PictureHeader

_SIGNATURE_BYTES = 8
_FIRST = b"\0\0\0\rIHDR"
_IHDR = struct.Struct(">IIBBBBB")
_CHUNK = struct.Struct(">I4s")
_NAME = re.compile(rb"\w{4}")  # what decoders take for one; the standard has letters only
_AROUND = 12  # length, name and checksum of a chunk
_MOST_SIDE = 2**31 - 1
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}  # by colour type
# Encoders cut pixels into pieces of 8 kB; other chunks are a dozen.
_MOST_OTHER_CHUNKS = 1000
_PACKED = frozenset({b"iCCP", b"zTXt", b"iTXt"})
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
    frames, orientation, unpacked, channels = 1, None, 0, _CHANNELS[colour]
    for name, start, length in _walk(body, _SIGNATURE_BYTES + _AROUND + _IHDR.size):
        if name in _PACKED:
            unpacked += _measure(name, body, start, start + length, at_most=_MOST_UNPACKED + 1 - unpacked)
            if unpacked > _MOST_UNPACKED:
                raise PictureTooCostly(
                    f"the PNG has texts or colour profiles of more than {_MOST_UNPACKED} bytes when unpacked; "
                    "save it without metadata"
                )
        elif name == b"tRNS":
            channels = 4
        elif name == b"acTL":
            frames = max(frames, int.from_bytes(body[start : start + 4], "big"))
        elif name == b"eXIf" and orientation is None:
            orientation = read_orientation(body[start : start + length])
    return PictureHeader(
        "PNG",
        width,
        height,
        frames=frames,
        orientation=orientation or UPRIGHT,
        channels=channels,
        bits=max(depth, 8),
    )


def _walk(body: bytes, position: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length of each chunk that holds no pixels, up to the end of the picture."""
    others, has_pixels = 0, False
    for _ in range(MOST_COUNTED):
        if position + _AROUND > len(body):
            raise _damaged(f"it is cut short {'behind' if has_pixels else 'before'} its pixels")
        length, name = _CHUNK.unpack_from(body, position)
        if name == b"IEND" or (has_pixels and not _NAME.fullmatch(name)):
            break  # what is broken behind the pixels, decoders do not read either
        if name == b"IDAT":
            has_pixels = True
        else:
            if name == b"IHDR" or (name == b"fdAT" and not has_pixels) or not _NAME.fullmatch(name):
                raise _damaged(f"it has a chunk {name!r} where none may be")
            others += 1
            if others > _MOST_OTHER_CHUNKS:
                raise PictureTooCostly(f"the PNG has more than {_MOST_OTHER_CHUNKS} chunks besides its pixels")
            yield name, position + _CHUNK.size, length
        position += _AROUND + length
    else:
        raise PictureTooCostly(f"the PNG has more than {MOST_COUNTED} chunks")
    if not has_pixels:
        raise _damaged("it is cut short before its pixels")


def _measure(name: bytes, body: bytes, start: int, end: int, *, at_most: int) -> int:
    """Bytes that a profile or a text unpacks to, as far as that is looked at; 0 for a text that is not packed."""
    start = _behind_zero(body, start, end)
    if name == b"iTXt":
        if body[start : start + 1] == b"\0":
            return 0
        start = _behind_zero(body, _behind_zero(body, start + 2, end), end) - 1
    packed = memoryview(body)[start + 1 : end]
    try:
        return len(zlib.decompressobj().decompress(packed, at_most))
    except zlib.error:  # decoders leave it out, after having unpacked nobody knows how much
        return min(len(packed) * _MOST_RATIO, _BROKEN_COUNTS)


def _behind_zero(body: bytes, start: int, end: int) -> int:
    """Where the text ends that begins at `start`; `end` if it does not."""
    at = body.find(b"\0", start, end)
    return at + 1 if at >= 0 else end


def _damaged(how: str) -> DamagedImage:
    return DamagedImage(f"the PNG picture is damaged: {how}")
