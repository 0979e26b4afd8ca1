"""A JPEG encoder of few lines, for what no other writes: any sampling factors, each channel in its own scan."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.pictures.jpeg import walk_segments
from tests.attacks.bombs import jpeg, jpeg_segment
from tests.service.fakes import encode

Blocks = NDArray[np.int64]
_SIDE, _QUANTUM = 8, 12
JFIF = jpeg_segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
_DHT = 0xC4
# The order of coefficients (T.81, figure 5), and the cosine transform (A.3.3) as a matrix.
_ZIGZAG = sorted(
    ((row, column) for row in range(_SIDE) for column in range(_SIDE)),
    key=lambda at: (sum(at), at[0] if sum(at) % 2 else at[1]),
)
_COSINES = np.cos(np.outer(np.arange(_SIDE), 2 * np.arange(_SIDE) + 1) * np.pi / 16) / 2
_COSINES[0] /= 2**0.5


def adobe(transform: int) -> bytes:
    """The segment that says how the channels are meant."""
    return jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes((transform,)))


def sampled_jpeg(
    picture: Image.Image,
    factors: Sequence[tuple[int, int]],
    *,
    interleaved: bool = True,
    restart: int = 0,
    head: bytes = JFIF,
) -> bytes:
    """Encode a picture as a sequential JPEG.

    Args:
        picture: its channels are stored as they are.
        factors: how finely each channel is sampled, across and down; 1..4.
        interleaved: all channels in one scan; else each in its own.
        restart: MCUs between restarts; 0 for none.
        head: segments at the beginning, which say how the channels are meant.
    """
    most = tuple(max(one) for one in zip(*factors, strict=True))
    columns, rows = (-(-side // (_SIDE * one)) for side, one in zip(picture.size, most, strict=True))
    channels = [
        _transform(np.asarray(band), rows, columns, own, most)
        for band, own in zip(picture.split(), factors, strict=True)
    ]
    parts = b"".join(bytes((number + 1, across << 4 | down, 0)) for number, (across, down) in enumerate(factors))
    frame = struct.pack(">BHHB", 8, picture.height, picture.width, len(factors)) + parts
    tables, codes = _huffman_tables()
    scans = [range(len(factors))] if interleaved else [[number] for number in range(len(factors))]
    pieces = [head, jpeg_segment(0xDB, b"\0" + bytes([_QUANTUM] * 64)), jpeg_segment(0xC0, frame), tables]
    pieces += [jpeg_segment(0xDD, struct.pack(">H", restart))] if restart else []
    for scan in scans:
        which = b"".join(bytes((number + 1, 0x11 if number % 3 else 0)) for number in scan)
        pieces.append(jpeg_segment(0xDA, bytes((len(scan),)) + which + b"\0\x3f\0"))
        if interleaved:
            units = list(_units(channels, factors, rows, columns))
        else:
            (number,) = scan
            own = channels[number]
            seen = [
                -(-side * one // (_SIDE * top))
                for side, one, top in zip(picture.size, factors[number], most, strict=True)
            ]
            units = [[(number, own[row, column])] for row in range(seen[1]) for column in range(seen[0])]
        pieces.append(_write_units(units, codes, restart))
    return jpeg(*pieces)


def jpeg_of_one_colour(width: int, height: int, factors: Sequence[tuple[int, int]]) -> bytes:
    """A grey JPEG of any size, as fast as its bytes can be repeated; the same bits stand for each MCU."""
    across, down = (_SIDE * max(pair[axis] for pair in factors) for axis in (0, 1))
    small = sampled_jpeg(Image.new("YCbCr", (8 * across, down), (128, 128, 128)), factors)
    start = small.index(b"\xff\xda") + 4 + 6 + 2 * len(factors) - 2
    units = -(-width // across) * -(-height // down)
    frame = small.index(b"\xff\xc0") + 5
    sized = small[:frame] + struct.pack(">HH", height, width) + small[frame + 4 : start]
    return sized + small[start:-2] * -(-units // 8) + small[-2:]


def _transform(
    plane: NDArray[np.uint8], rows: int, columns: int, own: tuple[int, int], most: tuple[int, int]
) -> Blocks:
    """[height, width] samples to [block rows, block columns, 64] coefficients in order, sampled as a channel is."""
    shape = rows * _SIDE * most[1], columns * _SIDE * most[0]
    padded = np.pad(
        plane.astype(float), [(0, big - small) for big, small in zip(shape, plane.shape, strict=True)], "edge"
    )
    across, down = most[0] // own[0], most[1] // own[1]
    fine = padded.reshape(shape[0] // down, down, shape[1] // across, across).mean(axis=(1, 3)) - 128
    blocks = fine.reshape(rows * own[1], _SIDE, columns * own[0], _SIDE).swapaxes(1, 2)
    found = np.rint(_COSINES @ blocks @ _COSINES.T / _QUANTUM).astype(np.int64)
    return np.stack([found[..., row, column] for row, column in _ZIGZAG], axis=-1)


def _units(
    channels: Sequence[Blocks], factors: Sequence[tuple[int, int]], rows: int, columns: int
) -> Iterator[list[tuple[int, Blocks]]]:
    """The blocks of each MCU, with the numbers of their channels (T.81, A.2.3)."""
    for row in range(rows):
        for column in range(columns):
            yield [
                (number, channels[number][row * down + y, column * across + x])
                for number, (across, down) in enumerate(factors)
                for y in range(down)
                for x in range(across)
            ]


def _huffman_tables() -> tuple[bytes, dict[int, dict[int, str]]]:
    """The tables of T.81's annex K as an encoder writes them, and their codes by table and symbol."""
    body = encode(Image.new("RGB", (8, 8)), "JPEG", optimize=False)
    segments = [body[start:end] for code, start, end in walk_segments(body, 2) if code == _DHT]
    codes: dict[int, dict[int, str]] = {}
    content = b"".join(segment[4:] for segment in segments)
    while content:
        number, counts = content[0], content[1:17]
        symbols, code = iter(content[17 : 17 + sum(counts)]), 0
        codes[number] = {}
        for length, count in enumerate(counts, 1):
            for _ in range(count):
                codes[number][next(symbols)] = f"{code:0{length}b}"
                code += 1
            code <<= 1
        content = content[17 + sum(counts) :]
    return b"".join(segments), codes


def _write_units(
    units: Sequence[Sequence[tuple[int, Blocks]]], codes: dict[int, dict[int, str]], restart: int
) -> bytes:
    written = []
    for begin in range(0, len(units), restart or len(units)):
        if begin:
            written.append(bytes((0xFF, 0xD0 + (begin // restart - 1) % 8)))
        last: dict[int, int] = {}
        bits = ""
        for unit in units[begin : begin + (restart or len(units))]:
            for number, block in unit:
                bits += _write_block(block, last.get(number, 0), codes, 1 if number % 3 else 0)
                last[number] = int(block[0])
        bits += "1" * (-len(bits) % 8)
        written.append(int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0"))
    return b"".join(written)


def _write_block(block: Blocks, last: int, codes: dict[int, dict[int, str]], table: int) -> str:
    """The bits of one block (T.81, F.1.2)."""
    difference = int(block[0]) - last
    bits, zeros = codes[table][difference.bit_length()] + _write_number(difference), 0
    for value in block[1 : 1 + max(np.flatnonzero(block[1:]) + 1, default=0)]:
        if value == 0:
            zeros += 1
            continue
        while zeros > 15:  # the longest run that a code has
            bits += codes[0x10 + table][0xF0]
            zeros -= 16
        bits += codes[0x10 + table][zeros << 4 | int(value).bit_length()] + _write_number(int(value))
        zeros = 0
    return bits + ("" if block[-1] else codes[0x10 + table][0])


def _write_number(value: int) -> str:
    size = value.bit_length()
    return f"{value if value >= 0 else value + (1 << size) - 1:0{size}b}" if size else ""
