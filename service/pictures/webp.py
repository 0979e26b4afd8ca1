"""The header of a WebP (RFC 9649): lossy, lossless, extended, animated."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from service.errors import DamagedImage, PictureTooCostly
from service.pictures.exif import UPRIGHT, read_orientation
from service.pictures.limits import MOST_COUNTED, PictureHeader

_CHUNK = struct.Struct("<4sI")
_RIFF_HEAD = 8
_FIRST_CHUNK = 12
_ANIMATED, _HAS_EXIF = 0x02, 0x08
_VP8_START = b"\x9d\x01\x2a"
_VP8L_START = 0x2F
_ANMF_HEAD = 16


def read_webp_header(body: bytes) -> PictureHeader:
    """Walk the chunks; the picture inside must be as large as its canvas.

    Args:
        body: begins like a WebP; what follows may be anything.

    Raises:
        DamagedImage: no decoder takes it.
        PictureTooCostly: there are too many chunks.
    """
    try:
        return _read(body)
    except struct.error:
        raise _damaged("it is cut short before its pixels") from None


def _read(body: bytes) -> PictureHeader:
    (size,) = struct.unpack_from("<I", body, 4)
    end = _RIFF_HEAD + size
    if end > len(body):
        raise _damaged("it is cut short")
    name, _ = _CHUNK.unpack_from(body, _FIRST_CHUNK)
    if name != b"VP8X":
        width, height = _read_bitstream(name, body, _FIRST_CHUNK + _CHUNK.size)
        return PictureHeader("WEBP", width, height)
    (flags,) = struct.unpack_from("<B", body, 20)
    width, height = _read_24(body, 24) + 1, _read_24(body, 27) + 1
    inside: tuple[int, int] | None = None
    frames, orientation = 0, None
    for name, start, length in _walk(body, _FIRST_CHUNK, end):
        if name == b"ANMF":
            frames += 1
            if frames == 1:
                _check_frame(body, start, start + length, (width, height))
        elif name in {b"VP8 ", b"VP8L"} and inside is None:
            inside = _read_bitstream(name, body, start)
        elif name == b"EXIF" and flags & _HAS_EXIF and orientation is None:
            orientation = read_orientation(body[start : start + length])
    is_whole = frames > 0 and inside is None if flags & _ANIMATED else frames == 0 and inside == (width, height)
    if not is_whole:
        raise _damaged(f"what is inside does not fill its {width} x {height} pixels")
    return PictureHeader("WEBP", width, height, frames=max(frames, 1), orientation=orientation or UPRIGHT)


def _walk(body: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length of each chunk."""
    for _ in range(MOST_COUNTED):
        if position + _CHUNK.size > end:
            return
        name, length = _CHUNK.unpack_from(body, position)
        position += _CHUNK.size
        if position + length > end:
            raise _damaged("a chunk reaches beyond its end")
        yield name, position, length
        position += length + (length & 1)
    raise PictureTooCostly(f"the WebP has more than {MOST_COUNTED} chunks")


def _check_frame(body: bytes, start: int, end: int, canvas: tuple[int, int]) -> None:
    """Require that the first frame of an animation is as large as it says, and lies on the canvas."""
    left, top = 2 * _read_24(body, start), 2 * _read_24(body, start + 3)
    size = _read_24(body, start + 6) + 1, _read_24(body, start + 9) + 1
    if left + size[0] > canvas[0] or top + size[1] > canvas[1]:
        raise _damaged("its first frame lies beyond its canvas")
    for name, position, _ in _walk(body, start + _ANMF_HEAD, end):
        if name in {b"VP8 ", b"VP8L"}:
            if _read_bitstream(name, body, position) == size:
                return
            break
    raise _damaged("its first frame has not the size that it says")


def _read_bitstream(name: bytes, body: bytes, start: int) -> tuple[int, int]:
    """Width and height of a key frame of VP8, or of VP8L; in pixels, >= 1."""
    if name == b"VP8 ":
        first, mark, width, height = struct.unpack_from("<B2x3sHH", body, start)
        if first & 1 or mark != _VP8_START:
            raise _damaged("its picture does not begin as VP8 does")
        width, height = width & 0x3FFF, height & 0x3FFF
        if not width or not height:
            raise _damaged(f"its size is {width} x {height}")
        return width, height
    if name == b"VP8L":
        mark, bits = struct.unpack_from("<BI", body, start)
        if mark != _VP8L_START or bits >> 29:
            raise _damaged("its picture does not begin as VP8L does")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise _damaged(f"it begins with a chunk {name!r}")


def _read_24(body: bytes, position: int) -> int:
    low, high = struct.unpack_from("<HB", body, position)
    return int(low | high << 16)


def _damaged(how: str) -> DamagedImage:
    return DamagedImage(f"the WEBP picture is damaged: {how}")
