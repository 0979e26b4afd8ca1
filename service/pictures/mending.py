"""A JPEG in parts, to be put together as it should have been written: without what decoders stumble over."""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from service.pictures.jpeg import END, FRAMES, PROGRESSIVE, START_OF_SCAN, Frame, damaged, read_frame, walk_segments
from service.pictures.limits import MOST_COUNTED

_START, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
# By channels: transforms that there are, and what others are taken for (libjpeg, jdapimin.c).
_TRANSFORMS = {1: ({0}, 0), 3: ({0, 1}, 1), 4: ({0, 2}, 2)}
_APP0, _APP14, _RESTART_INTERVAL = 0xE0, 0xEE, 0xDD
_TABLES = frozenset({0xC4, 0xCC, 0xDB, _RESTART_INTERVAL})
_SCAN_BYTES = 8  # of a header without channels
_RESTARTS = range(0xD0, 0xD8)
_BLOCK = 8  # pixels a side
_MOST_SIDE = 65_000
# What ends a piece of coded data: any marker, for a zero is stuffed behind each FF of the data.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_STRETCH = 2**16  # so that no search holds the interpreter for long


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan of a JPEG.

    Attributes:
        head: tables that came since the scan before, and its header.
        pieces: coded data between restarts.
        piece_units: MCUs of each piece but the last, which has those that are left; 0 where there are no restarts.
        units: MCUs of the scan.
        channels: numbers of the channels in it.
    """

    head: bytes
    pieces: tuple[memoryview, ...]
    piece_units: int
    units: int
    channels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """What matters of a JPEG.

    Attributes:
        meaning: segments that say how its channels are meant.
        frame: its frame.
        frame_segment: the bytes of that.
        scans: its scans.
        tail: what stands between the last scan and the end, which decoders look into.
    """

    meaning: bytes
    frame: Frame
    frame_segment: bytes
    scans: tuple[Scan, ...]
    tail: bytes

    @property
    def is_single(self) -> bool:
        """Whether it is sequential, and one scan holds all of it."""
        return self.frame.code != PROGRESSIVE and len(self.scans[0].channels) == len(self.frame.ids)

    def write(self, scans: int | None = None, *, padding: bytes = b"") -> bytes:
        """Put it together again.

        Args:
            scans: as many of the first ones; None: all.
            padding: goes behind each piece of coded data.
        """
        written: list[bytes | memoryview] = [_START, self.meaning, self.frame_segment]
        for scan in self.scans[:scans]:
            written.append(scan.head)
            for number, piece in enumerate(scan.pieces):
                if number:
                    written.append(bytes((0xFF, _RESTARTS[(number - 1) % 8])))
                written += (piece, padding)
        return b"".join([*written, self.tail, _END_OF_IMAGE])

    def write_pieces(self) -> Iterator[bytes]:
        """Put each piece of the single scan into a JPEG of its own, as large as the MCUs that it ought to have.

        Raises:
            DamagedImage: no picture has so many of them.
        """
        scan = self.scans[0]
        for number, piece in enumerate(scan.pieces):
            units = min(scan.piece_units or scan.units, scan.units - number * scan.piece_units)
            width, height = _unit_size(self.frame, scan.channels)
            columns = next((n for n in range(min(units, _MOST_SIDE // width), 0, -1) if units % n == 0), 1)
            if units // columns * height > _MOST_SIDE:
                raise damaged("there are stray bytes between its restarts")
            sides = struct.pack(">HH", units // columns * height, columns * width)
            segment = self.frame_segment[:5] + sides + self.frame_segment[9:]
            yield b"".join([_START, self.meaning, segment, scan.head, piece, _END_OF_IMAGE])

    def without_end(self, scan: int, count: int) -> Parts:
        """Drop the last bytes of the coded data of one scan."""
        *others, last = self.scans[scan].pieces
        mended = dataclasses.replace(self.scans[scan], pieces=(*others, last[: max(0, len(last) - count)]))
        return dataclasses.replace(self, scans=(*self.scans[:scan], mended, *self.scans[scan + 1 :]))


def take_apart(body: bytes) -> Parts:
    """Find what matters of a JPEG whose header has been read; what its coded data mean is not looked at.

    Parameters of sequential scans, unknown transforms and versions are set right; other metadata, bytes between
    segments and what comes behind the end are left out; a missing end is none.

    Raises:
        DamagedImage: a segment is cut short, a restart is missing, or there is no scan of one of its channels.
    """
    reading = _Reading(body)
    while reading.go_to_scan():
        reading.read_scan()
    if reading.frame is None or not reading.is_complete:
        raise damaged("it ends before all of its channels have come")
    meaning = b"".join(_mean(reading.meaning, len(reading.frame.ids)))
    rest = b"" if body.startswith(_END_OF_IMAGE, reading.position) else body[reading.position :]
    tail = b"".join([*reading.tables, rest])
    return Parts(meaning, reading.frame, reading.frame_segment, tuple(reading.scans), tail)


@dataclass(slots=True)
class _Reading:
    """What has been read of a JPEG, up to `position`."""

    body: bytes
    position: int = 2
    frame: Frame | None = None
    frame_segment: bytes = b""
    meaning: list[bytes] = field(default_factory=list)
    tables: list[bytes] = field(default_factory=list)
    interval: int = 0
    scans: list[Scan] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether there was a scan of each channel."""
        seen = {channel for scan in self.scans for channel in scan.channels}
        return self.frame is not None and len(seen) == len(self.frame.ids)

    def go_to_scan(self) -> bool:
        """Take the segments before the next scan; False where there is none, or none that a decoder would look at."""
        if self.scans and self.frame is not None:
            # One scan of all channels completes a sequential picture. Others may end with any scan.
            is_over = self.frame.code != PROGRESSIVE and len(self.scans[0].channels) == len(self.frame.ids)
            if is_over or _MARKER.search(self.body, self.position) is None:
                return False
        for code, start, end in walk_segments(self.body, self.position):
            if code == END:
                self.position = start
                return False
            if code == START_OF_SCAN:
                self.position = start
                return True
            self._take(code, start, self.body[start:end])
        raise damaged("it is cut short between its scans")

    def _take(self, code: int, start: int, segment: bytes) -> None:
        if code in FRAMES:
            self.frame, self.frame_segment = read_frame(code, self.body, start), segment
        elif code in _TABLES:
            self.tables.append(segment)
            if code == _RESTART_INTERVAL:
                self.interval = int.from_bytes(segment[4:6], "big")
        elif code == _APP0 and segment[4:9] == b"JFIF\0":
            self.meaning.append(_JFIF)
        elif code == _APP14 and segment[4:9] == b"Adobe" and len(segment) >= len(_ADOBE) + 1:
            self.meaning.append(segment[: len(_ADOBE) + 1])

    def read_scan(self) -> None:
        """Read the scan whose marker stands at `position`, and go behind its coded data."""
        body, start, frame = self.body, self.position, self.frame
        count = body[start + 4] if start + 4 < len(body) else 0
        header = body[start : start + _SCAN_BYTES + 2 * count]
        if len(header) < _SCAN_BYTES + 2 * count or int.from_bytes(header[2:4], "big") != len(header) - 2:
            raise damaged("the header of a scan is cut short")
        if frame is None:
            raise damaged("its pixels come before their size")
        channels = tuple(frame.ids.index(one) for one in header[5 : 5 + 2 * count : 2] if one in frame.ids)
        if not channels or len(channels) != count:
            raise damaged("a scan has other channels than its frame")
        if frame.code != PROGRESSIVE:  # where a scan has no choice, some cameras write zeros
            header = header[:-3] + b"\x00\x3f\x00"
        units = _count_units(frame, channels)
        wanted = -(-units // self.interval) if self.interval else 1
        pieces, self.position = _read_pieces(body, start + len(header), wanted)
        self.scans.append(Scan(b"".join(self.tables) + header, pieces, self.interval, units, channels))
        self.tables = []


def _mean(meaning: Sequence[bytes], channels: int) -> Iterator[bytes]:
    known, otherwise = _TRANSFORMS[channels]
    for segment in meaning:
        if segment == _JFIF:
            yield segment
        else:
            yield _ADOBE + bytes((segment[-1] if segment[-1] in known else otherwise,))


def _read_pieces(body: bytes, position: int, wanted: int) -> tuple[tuple[memoryview, ...], int]:
    """So many pieces of coded data with the right restarts between them, and where the next marker stands."""
    if wanted > MOST_COUNTED:
        raise damaged(f"it is not in order, and has more than {MOST_COUNTED} restarts")
    view, pieces, start = memoryview(body), [], position
    for code, at in _find_markers(body, position):
        pieces.append(_without_fill(view[start:at]))
        if len(pieces) == wanted:
            return tuple(pieces), at
        if code != _RESTARTS[(len(pieces) - 1) % 8]:
            break
        start = at + 2
    else:
        pieces.append(_without_fill(view[start:]))
        if len(pieces) == wanted:
            return tuple(pieces), len(body)
    raise damaged("a restart is missing, or the end of its pixels")


def _find_markers(body: bytes, position: int) -> Iterator[tuple[int, int]]:
    """Code and place of each marker from here on."""
    while position < len(body):
        end = position + _STRETCH
        for marker in _MARKER.finditer(body, position, end + 1):
            yield body[marker.end() - 1], marker.start()
        position = end


def _without_fill(piece: memoryview) -> memoryview:
    """Coded data without bytes FF behind them, which are the beginning of a marker."""
    end = len(piece)
    while end and piece[end - 1] == 0xFF:  # noqa: PLR2004 - the fill byte
        end -= 1
    return piece[:end]


def _unit_size(frame: Frame, channels: Sequence[int]) -> tuple[int, int]:
    """Width and height of an MCU of all channels; in pixels."""
    if len(channels) == 1:
        return _BLOCK, _BLOCK
    across, down = frame.most
    return _BLOCK * across, _BLOCK * down


def _count_units(frame: Frame, channels: Sequence[int]) -> int:
    """How many MCUs a scan of some channels has (T.81, A.2)."""
    most_across, most_down = frame.most
    if len(channels) > 1:
        return -(-frame.width // (_BLOCK * most_across)) * -(-frame.height // (_BLOCK * most_down))
    across, down = frame.factors[channels[0]]
    return -(-frame.width * across // (most_across * _BLOCK)) * -(-frame.height * down // (most_down * _BLOCK))
