"""The header of a JPEG (ITU-T T.81), and how often a decoder will go over its pixels."""

from __future__ import annotations

import functools
import itertools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from service.errors import DamagedImage, PictureTooCostly
from service.pictures.exif import PREFIX as EXIF_PREFIX
from service.pictures.exif import read_orientation
from service.pictures.limits import MOST_COUNTED, PictureHeader

XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
FRAMES = frozenset({BASELINE, EXTENDED, PROGRESSIVE})
_OTHER_FRAMES = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
START_OF_SCAN, END, _APP1 = 0xDA, 0xD9, 0xE1
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
# Huffman and arithmetic tables, DNL, quantisation, restart interval, APPn, comment.
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)})
_CHANNELS = frozenset({1, 3, 4})
_MOST_FACTOR = 4  # of sampling
_FRAME = struct.Struct(">HBHHB")
_LEAST_LENGTH = 2  # a length counts itself
_MOST_SEGMENTS = 1000
_MOST_STRAY = 2**16
# Where a segment begins: decoders pass over whatever stands before, fill bytes and stuffed zeros among them.
_SEGMENT = re.compile(rb"\xff[^\x00\xff]")
_FILL = 0xFF

_SCANS = re.compile(rb"\xff\xda")
# Behind a scan's data: entropy coding stuffs a zero behind each FF, and restarts lie between its pieces.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_STRETCH = 2**16
# Coded data hold an FF every 256 bytes. What holds so many more is none, and slow to search.
_MOST_IN_STRETCH = _STRETCH // 32

# Sampling of luminance that simplejpeg has a name for where chrominance is 1 x 1: 4:4:4, 4:2:2, 4:2:0, 4:4:0, 4:1:1.
_NAMED = frozenset({(1, 1), (2, 1), (2, 2), (1, 2), (4, 1)})
_INKS = 4
_BLOCK = 8  # pixels a side
_MOST_BLOCKS = 10  # that lie together in a scan


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands in a frame's header (T.81, B.2.2).

    Attributes:
        code: of its marker.
        width, height: in pixels.
        ids: of the channels.
        factors: how finely each channel is sampled, across and down; 1..4.
    """

    code: int
    width: int
    height: int
    ids: tuple[int, ...]
    factors: tuple[tuple[int, int], ...]

    @property
    def most(self) -> tuple[int, int]:
        """The largest factors, across and down."""
        return max(across for across, _ in self.factors), max(down for _, down in self.factors)

    @property
    def is_usual(self) -> bool:
        """Whether simplejpeg decodes a picture that is sampled so; Pillow decodes all others."""
        return _is_usual(self.factors)

    def count_coefficients(self) -> int:
        """How many there are of all channels; each block has 64."""
        across, down = self.most
        units = -(-self.width // (_BLOCK * across)) * -(-self.height // (_BLOCK * down))
        return units * sum(own * other for own, other in self.factors) * _BLOCK**2


@functools.lru_cache(maxsize=64)
def _is_usual(factors: tuple[tuple[int, int], ...]) -> bool:
    luminance, *others = factors
    if not others:
        return True
    if len(factors) == _INKS and others.pop() != luminance:
        return False
    chrominance = set(others)
    if chrominance == {luminance}:
        return luminance[0] * luminance[1] * len(factors) <= _MOST_BLOCKS
    if chrominance == {(1, 1)}:
        return luminance in _NAMED
    # 4:2:2 and 4:4:0, each factor down or across doubled.
    return len(factors) < _INKS and luminance == (2, 2) and chrominance in ({(1, 2)}, {(2, 1)})


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
    position, frame, orientation = _find_scan(body)
    inside = body[position + 4] if position + 4 < len(body) else 0
    if not 1 <= inside <= len(frame.ids):
        raise damaged(f"its first scan has {inside} of {len(frame.ids)} channels")
    # One scan of all channels completes a sequential picture; decoders refuse a second one.
    is_complete = frame.code != PROGRESSIVE and inside == len(frame.ids)
    scans = 1 if is_complete else sum(1 for _ in itertools.islice(_SCANS.finditer(body, position), MOST_COUNTED + 1))
    return PictureHeader(
        "JPEG",
        frame.width,
        frame.height,
        scans=scans,
        orientation=orientation,
        channels=len(frame.ids),
        coefficients=0 if is_complete else frame.count_coefficients(),
        is_usual=frame.is_usual,
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
        if code == END:
            return scans
        scans += code == START_OF_SCAN
        position += int.from_bytes(body[position : position + 2], "big")
    return None


def _find_scan(body: bytes) -> tuple[int, Frame, int]:
    """Where the marker of the first scan stands, the frame before it, and the orientation."""
    frame, exif, xmp = None, b"", b""
    for code, position, end in walk_segments(body, 2):
        if code in FRAMES:
            if frame is not None:
                raise damaged("it has several frames")
            frame = read_frame(code, body, position)
        elif code == _APP1:
            # Some write an empty EXIF before the real one.
            if not exif and body.startswith(EXIF_PREFIX, position + 4):
                exif = body[position + 4 + len(EXIF_PREFIX) : end]
            elif body.startswith(XMP_PREFIX, position + 4):
                xmp = body[position + 4 + len(XMP_PREFIX) : end]
        elif code == START_OF_SCAN:
            if frame is None:
                raise damaged("its pixels come before their size")
            return position, frame, read_orientation(exif, xmp)
        elif code == END:
            raise _refuse(code) if end < len(body) else damaged("it is cut short before its pixels")
    raise damaged("it is cut short before its pixels")


def walk_segments(body: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """Go from segment to segment as decoders do: bytes between them count for nothing.

    Returns:
        Marker code, where the marker stands and where the segment ends; the mark of the picture's end, or the last
        segment that the bytes hold whole, is the last one. A scan counts as one where its marker stands.

    Raises:
        DamagedImage: a marker makes no sense.
        PictureTooCostly: there are too many segments, one behind the other.
    """
    size, stray = len(body), 0
    for _ in range(_MOST_SEGMENTS):
        start = position
        if start + 1 >= size or body[start] != _FILL or not 0 < body[start + 1] < _FILL:
            marker = _SEGMENT.search(body, position, position + _MOST_STRAY)
            if marker is None:
                return
            start = marker.start()
            stray += start - position
            if stray > _MOST_STRAY:
                raise damaged("there are too many bytes between its segments")
        position = start + 2
        code = body[position - 1]
        if code in _WITHOUT_LENGTH:
            continue
        if code == END:
            yield code, start, position
            return
        if code not in _TABLES and code not in FRAMES and code != START_OF_SCAN:
            raise _refuse(code)
        length = int.from_bytes(body[position : position + 2], "big")
        position += length
        if position > size and code != START_OF_SCAN:  # how far that goes is for who reads it
            return
        if length < _LEAST_LENGTH:
            raise damaged("a segment has no length")
        yield code, start, position
    raise PictureTooCostly(f"the JPEG has more than {_MOST_SEGMENTS} segments before its pixels")


def _refuse(code: int) -> DamagedImage:
    if code in _OTHER_FRAMES:
        return DamagedImage(
            "the JPEG is lossless, hierarchical or arithmetic-coded, which is not decoded here; save it as baseline"
        )
    return damaged(f"its header has a marker FF {code:02X}")


def read_frame(code: int, body: bytes, position: int) -> Frame:
    """Read the frame whose marker stands at `position`."""
    try:
        length, bits, height, width, channels = _FRAME.unpack_from(body, position + 2)
    except struct.error:
        raise damaged("it is cut short before its pixels") from None
    if bits != 8:  # noqa: PLR2004 - T.81 allows 12 and 16 too
        raise DamagedImage(f"the JPEG has {bits} bits a channel, which is not decoded here; save it with 8")
    if channels not in _CHANNELS or length != _FRAME.size + 3 * channels:
        raise damaged(f"it has {channels} channels in {length} bytes")
    if not width or not height:
        raise damaged(f"its size is {width} x {height}")
    parts = body[position + 2 + _FRAME.size : position + 2 + length]
    factors = _read_factors(parts[1::3])
    if not factors:
        raise damaged("its channels are sampled in no way that there is")
    return Frame(code, width, height, tuple(parts[::3]), factors)


@functools.lru_cache(maxsize=64)
def _read_factors(packed: bytes) -> tuple[tuple[int, int], ...]:
    """Factors of each channel, out of a byte for each; none where one is not 1..4."""
    factors = tuple((both >> 4, both & 15) for both in packed)
    return factors if all(1 <= factor <= _MOST_FACTOR for pair in factors for factor in pair) else ()


def damaged(how: str) -> DamagedImage:
    """The refusal of a JPEG, in one sentence."""
    return DamagedImage(f"the JPEG picture is damaged: {how}")
