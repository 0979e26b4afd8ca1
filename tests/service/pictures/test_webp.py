from __future__ import annotations

import struct

import pytest

from service.errors import DamagedImage, PictureTooCostly
from service.pictures.webp import read_webp_header
from tests.attacks import bombs
from tests.attacks.bombs import anmf, vp8l, vp8x, webp, webp_chunk
from tests.service.fakes import encode, make_picture

LOSSY = encode(make_picture(40, 30), "WEBP")
STILL = webp_chunk(b"VP8L", vp8l(40, 30))
ANIM = webp_chunk(b"ANIM", bytes(6))
TURNED = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHH", 1, 0x0112, 3, 1, 6, 0)


def lossy(old: bytes, new: bytes) -> bytes:
    assert old in LOSSY
    return LOSSY.replace(old, new)


@pytest.mark.parametrize("body", [LOSSY, webp(STILL), webp(vp8x(40, 30, 0), STILL)])
def test_lossy_lossless_and_extended_are_read(body: bytes) -> None:
    header = read_webp_header(body)
    assert (header.width, header.height, header.frames, header.orientation) == (40, 30, 1, 1)


@pytest.mark.parametrize("side", [1, 2, 16_383, 16_384])
def test_every_side_of_a_lossless_picture_is_read(side: int) -> None:
    header = read_webp_header(bombs.pixel_bomb_webp(side, 1))
    assert (header.width, header.height) == (side, 1)


@pytest.mark.parametrize("frames", [1, 2, 30])
def test_frames_are_counted(frames: int) -> None:
    assert read_webp_header(bombs.animated_webp(frames)).frames == frames


def test_exif_counts_where_the_header_announces_it_and_the_first_one_only() -> None:
    exif, other = webp_chunk(b"EXIF", TURNED), webp_chunk(b"EXIF", TURNED.replace(b"\0\x06", b"\0\x03"))
    assert read_webp_header(webp(vp8x(40, 30, 0x08), STILL, exif, other)).orientation == 6
    assert read_webp_header(webp(vp8x(40, 30, 0x08), STILL, webp_chunk(b"EXIF", b"Exif\0\0" + TURNED))).orientation == 6
    assert read_webp_header(webp(vp8x(40, 30, 0x00), STILL, exif)).orientation == 1


def test_alpha_before_the_picture_and_bytes_behind_the_end_are_passed_over() -> None:
    alpha = webp_chunk(b"ALPH", bytes(5))
    body = webp(vp8x(40, 30, 0x10), webp_chunk(b"ICCP", bytes(3)), alpha, STILL)
    assert read_webp_header(body + STILL).width == 40
    assert read_webp_header(webp(vp8x(40, 30, 2), ANIM, anmf(40, 30, inside=alpha + STILL))).frames == 1


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (LOSSY[:-1], "it is cut short"),
        (LOSSY[:15], "it is cut short"),
        (webp(), "it is cut short before its pixels"),
        (webp(webp_chunk(b"VP8 ", b"")), "it is cut short before its pixels"),
        (webp(webp_chunk(b"VP8L", b"\x2f")), "it is cut short before its pixels"),
        (webp(webp_chunk(b"VP8X", bytes(4))), "it is cut short before its pixels"),
        (webp(webp_chunk(b"junk", bytes(9))), "it begins with a chunk b'junk'"),
        (lossy(b"\x9d\x01\x2a", b"\x9d\x01\x2b"), "does not begin as VP8 does"),
        (lossy(b"\x9d\x01\x2a\x28\0", b"\x9d\x01\x2a\0\0"), "its size is 0 x 30"),
        (lossy(b"\x2a\x28\0\x1e\0", b"\x2a\x28\0\0\xc0"), "its size is 40 x 0"),
        (webp(webp_chunk(b"VP8 ", b"\x31" + LOSSY[21:])), "does not begin as VP8 does"),
        (webp(webp_chunk(b"VP8L", b"\x2e" + vp8l(4, 4)[1:])), "does not begin as VP8L does"),
        (webp(webp_chunk(b"VP8L", vp8l(4, 4)[:4] + b"\xff" + bytes(9))), "does not begin as VP8L does"),
        (webp(vp8x(41, 30, 0), STILL), "does not fill its 41 x 30 pixels"),
        (webp(vp8x(40, 30, 0)), "does not fill its 40 x 30 pixels"),
        (webp(vp8x(40, 30, 2), ANIM), "does not fill its 40 x 30 pixels"),
        (webp(vp8x(40, 30, 2), ANIM, STILL), "does not fill its 40 x 30 pixels"),
        (webp(vp8x(40, 30, 2), ANIM, anmf(40, 30), STILL), "does not fill its 40 x 30 pixels"),
        (webp(vp8x(40, 30, 0), STILL, anmf(40, 30)), "does not fill its 40 x 30 pixels"),
        (webp(vp8x(40, 30, 2), ANIM, anmf(40, 31)), "its first frame lies beyond its canvas"),
        (webp(vp8x(40, 30, 2), ANIM, anmf(20, 20, left=22)), "its first frame lies beyond its canvas"),
        (webp(vp8x(40, 30, 2), ANIM, anmf(20, 30, inside=STILL)), "its first frame has not the size that it says"),
        (webp(vp8x(40, 30, 2), ANIM, anmf(40, 30, inside=b"")), "its first frame has not the size that it says"),
        (webp(vp8x(40, 30, 2), webp_chunk(b"ANMF", bytes(5))), "cut short|beyond|not the size"),
        (webp(vp8x(40, 30, 0), STILL[:-4]), "a chunk reaches beyond its end"),
    ],
)
def test_what_no_decoder_takes_is_damaged(body: bytes, sentence: str) -> None:
    with pytest.raises(DamagedImage, match=f"the WEBP picture is damaged: .*({sentence})"):
        read_webp_header(body)


def test_too_many_chunks_are_too_costly() -> None:
    with pytest.raises(PictureTooCostly, match="more than 10000 chunks"):
        read_webp_header(bombs.animated_webp(10_000))
