"""The header of a WebP (RFC 9649): lossy, lossless, extended, animated."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from service.errors import DamagedImage, PictureTooCostly
from service.pictures.exif import read_orientation
from service.pictures.limits import MOST_COUNTED, PictureHeader

_CHUNK = struct.Struct("<4sI")
_RIFF_HEAD = 8
_FIRST_CHUNK = 12
_ANIMATED = 0x02
_SAYS_WHICH_WAY_UP = {b"EXIF": 0x08, b"XMP ": 0x04}
_PIXELS = frozenset({b"VP8 ", b"VP8L", b"ALPH", b"ANMF"})
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
    end, is_cut = _find_end(body)
    name, length = _CHUNK.unpack_from(body, _FIRST_CHUNK)
    if name != b"VP8X":
        width, height = _read_bitstream(name, body, _FIRST_CHUNK + _CHUNK.size)
        if _FIRST_CHUNK + _CHUNK.size + length > end:
            raise _damaged("it is cut short")
        return PictureHeader("WEBP", width, height)
    return _read_extended(body, end, is_cut=is_cut)


def _read_extended(body: bytes, end: int, *, is_cut: bool) -> PictureHeader:
    (flags,) = struct.unpack_from("<B", body, 20)
    width, height = _read_24(body, 24) + 1, _read_24(body, 27) + 1
    inside: tuple[int, int] | None = None
    frames = 0
    said = {name: b"" for name, flag in _SAYS_WHICH_WAY_UP.items() if flags & flag}
    for name, start, length in _walk(body, _FIRST_CHUNK, end):
        if name == b"ANMF":
            frames += 1
            if frames == 1:
                _check_frame(body, start, start + length, (width, height))
        elif name in {b"VP8 ", b"VP8L"} and inside is None:
            inside = _read_bitstream(name, body, start)
        elif name in said:
            said[name] = said[name] or body[start : start + length]
    if is_cut and not all(said.values()):
        raise _damaged("it is cut short before it says which way up it is")
    is_whole = frames > 0 and inside is None if flags & _ANIMATED else frames == 0 and inside == (width, height)
    if not is_whole:
        raise _damaged(f"what is inside does not fill its {width} x {height} pixels")
    orientation = read_orientation(said.get(b"EXIF", b""), said.get(b"XMP ", b""))
    return PictureHeader("WEBP", width, height, frames=max(frames, 1), orientation=orientation)


def mend_webp(body: bytes) -> bytes:
    """Make the container as long as what is in it, and leave out a last chunk that is cut short.

    Args:
        body: a WebP whose header has been read.
    """
    end, is_cut = _find_end(body)
    if not is_cut and not end & 1:
        return body
    chunks = b"".join(
        name + struct.pack("<I", length) + body[start : start + length] + bytes(length & 1)
        for name, start, length in _walk(body, _FIRST_CHUNK, end)
    )
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _find_end(body: bytes) -> tuple[int, bool]:
    """Where the container ends, and whether that is sooner than it says."""
    (size,) = struct.unpack_from("<I", body, 4)
    return min(_RIFF_HEAD + size, len(body)), _RIFF_HEAD + size > len(body)


def _walk(body: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length of each chunk."""
    for _ in range(MOST_COUNTED):
        if position + _CHUNK.size > end:
            return
        name, length = _CHUNK.unpack_from(body, position)
        position += _CHUNK.size
        if position + length > end:
            if name in _PIXELS:
                raise _damaged("a chunk reaches beyond its end")
            return
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
