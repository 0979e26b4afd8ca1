from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.pictures.exif import read_orientation
from tests.attacks.bombs import exif_bomb


def tiff(order: str, *entries: bytes, start: int = 8) -> bytes:
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", start) + struct.pack(f"{order}H", len(entries)) + b"".join(entries)


def entry(order: str, value: int, *, tag: int = 0x0112, kind: int = 3, count: int = 1) -> bytes:
    form = f"{order}HHIHH" if kind == 3 else f"{order}HHII"
    return struct.pack(form, tag, kind, count, value, *([0] if kind == 3 else []))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_pillow_writes_is_read(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x0132] = "somebody", orientation, "2026:01:01 00:00:00"
    assert read_orientation(exif.tobytes()) == orientation


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
def test_both_byte_orders_and_both_lengths_are_read(order: str, kind: int) -> None:
    body = tiff(order, entry(order, 7, tag=0x0100), entry(order, 6, kind=kind))
    assert read_orientation(body) == read_orientation(b"Exif\0\0" + body) == 6


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"II*\0",
        b"XX*\0" + bytes(40),
        tiff("<"),
        tiff("<", start=2**32 - 1),
        tiff("<", entry("<", 0)),
        tiff("<", entry("<", 9)),
        tiff("<", entry("<", 6, kind=7)),
        tiff("<", entry("<", 6, count=2)),
        tiff("<", entry("<", 6))[:-1],
        tiff("<", *[entry("<", 1, tag=1)] * 300, entry("<", 6)),
        exif_bomb(65_000, 10**6),
    ],
)
def test_whatever_makes_no_sense_is_upright(exif: bytes) -> None:
    assert read_orientation(exif) == 1


@given(st.binary(max_size=60), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
def test_noise_is_some_orientation(noise: bytes, start: bytes) -> None:
    assert 1 <= read_orientation(start + noise) <= 8
