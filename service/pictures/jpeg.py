"""The header of a JPEG (ITU-T T.81), and how often a decoder will go over its pixels."""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from service.errors import DamagedImage, PictureTooCostly
from service.pictures.exif import PREFIX as EXIF_PREFIX
from service.pictures.exif import UPRIGHT, read_orientation
from service.pictures.limits import MOST_COUNTED, PictureHeader

_FILL = 0xFF
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_FRAMES = frozenset({_BASELINE, _EXTENDED, _PROGRESSIVE})
_OTHER_FRAMES = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_START_OF_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
# Huffman and arithmetic tables, DNL, quantisation, restart interval, APPn, comment.
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)})
_CHANNELS = frozenset({1, 3, 4})
_FRAME = struct.Struct(">HBHHB")
_LEAST_LENGTH = 2  # a length counts itself
_MOST_SEGMENTS = 1000

_SCANS = re.compile(rb"\xff\xda")
# Behind a scan's data: entropy coding stuffs a zero behind each FF, and restarts lie between its pieces.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_STRETCH = 2**16
# Coded data hold an FF every 256 bytes. What holds so many more is none, and slow to search.
_MOST_IN_STRETCH = _STRETCH // 32


class _Frame(NamedTuple):
    code: int
    width: int
    height: int
    channels: int


def read_jpeg_header(body: bytes) -> PictureHeader:
    """Walk the segments up to the first scan; what lies inside a segment, such as a thumbnail, is never looked at.

    Args:
        body: begins like a JPEG; what follows may be anything.

    Returns:
        The header. Its scans are counted by their marker wherever it stands, so that they are never too few.

    Raises:
        DamagedImage: no decoder here takes it.
        PictureTooCostly: there are too many segments.
    """
    position, frame, exif = _find_scan(body)
    inside = body[position + 4] if position + 4 < len(body) else 0
    if not 1 <= inside <= frame.channels:
        raise _damaged(f"its first scan has {inside} of {frame.channels} channels")
    # One scan of all channels completes a sequential picture; decoders refuse a second one.
    is_complete = frame.code != _PROGRESSIVE and inside == frame.channels
    scans = 1 if is_complete else sum(1 for _ in itertools.islice(_SCANS.finditer(body, position), MOST_COUNTED + 1))
    orientation = read_orientation(exif) if exif else UPRIGHT
    return PictureHeader(
        "JPEG",
        frame.width,
        frame.height,
        scans=scans,
        orientation=orientation,
        channels=frame.channels,
        is_buffered=not is_complete,
    )


def count_scans(body: bytes) -> int | None:
    """Count the scans of a JPEG whose header has been read: none that lies in a segment, or behind the picture's end.

    Returns:
        The scans; None where counting would take too long.
    """
    scans = markers = 0
    position, _, _ = _find_scan(body)
    counted = position
    while markers < MOST_COUNTED:
        if position >= len(body):
            return scans
        if position >= counted:
            counted = position + _STRETCH
            if body.count(b"\xff", position, counted) > _MOST_IN_STRETCH:
                return None
        marker = _MARKER.search(body, position, counted + 1)
        if marker is None:
            position = counted
            continue
        markers += 1
        position = marker.end()
        code = body[position - 1]
        if code == _END:
            return scans
        scans += code == _START_OF_SCAN
        position += int.from_bytes(body[position : position + 2], "big")
    return None


def _find_scan(body: bytes) -> tuple[int, _Frame, bytes]:
    """Where the marker of the first scan stands, the frame before it, and the EXIF."""
    frame, exif = None, b""
    try:
        for code, position, length in _segments(body):
            if code in _FRAMES:
                if frame is not None:
                    raise _damaged("it has several frames")
                frame = _read_frame(code, body, position + 2)
            elif code == _APP1 and not exif and body.startswith(EXIF_PREFIX, position + 4):
                exif = body[position + 4 : position + 2 + length]
            elif code == _START_OF_SCAN:
                if frame is None:
                    raise _damaged("its pixels come before their size")
                return position, frame, exif
            elif code not in _TABLES:
                raise _refuse(code)
    except (IndexError, struct.error):
        raise _damaged("it is cut short before its pixels") from None
    raise PictureTooCostly(f"the JPEG has more than {_MOST_SEGMENTS} segments before its pixels")


def _segments(body: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker code, where the marker stands, and length behind it, of each segment; ends after too many of them."""
    position = 2
    for _ in range(_MOST_SEGMENTS):
        if body[position] != _FILL:
            raise _damaged("a segment ends elsewhere than it says")
        code = body[position + 1]
        if code == _FILL:
            position += 1
        elif code in _WITHOUT_LENGTH:
            position += 2
        else:
            length = body[position + 2] << 8 | body[position + 3]
            if length < _LEAST_LENGTH:
                raise _damaged("a segment has no length")
            yield code, position, length
            position += 2 + length


def _refuse(code: int) -> DamagedImage:
    if code in _OTHER_FRAMES:
        return DamagedImage(
            "the JPEG is lossless, hierarchical or arithmetic-coded, which is not decoded here; save it as baseline"
        )
    return _damaged(f"its header has a marker FF {code:02X}")


def _read_frame(code: int, body: bytes, position: int) -> _Frame:
    length, bits, height, width, channels = _FRAME.unpack_from(body, position)
    if bits != 8:  # noqa: PLR2004 - T.81 allows 12 and 16 too
        raise DamagedImage(f"the JPEG has {bits} bits a channel, which is not decoded here; save it with 8")
    if channels not in _CHANNELS or length != _FRAME.size + 3 * channels:
        raise _damaged(f"it has {channels} channels in {length} bytes")
    if not width or not height:
        raise _damaged(f"its size is {width} x {height}")
    return _Frame(code, width, height, channels)


def _damaged(how: str) -> DamagedImage:
    return DamagedImage(f"the JPEG picture is damaged: {how}")
