from __future__ import annotations

import struct
import zlib

import pytest

from service.errors import DamagedImage, PictureTooCostly
from service.pictures.png import read_png_header
from tests.attacks import bombs
from tests.attacks.bombs import png, png_chunk
from tests.service.fakes import encode, make_picture

PACKED = [b"iCCP", b"zTXt", b"iTXt"]
MEGABYTE = 2**20


@pytest.mark.parametrize(
    ("colour", "depth"), [(0, 1), (0, 2), (0, 4), (0, 16), (2, 16), (3, 1), (3, 8), (4, 8), (4, 16), (6, 8), (6, 16)]
)
def test_every_colour_type_is_read(colour: int, depth: int) -> None:
    header = read_png_header(png(7, 5, depth=depth, colour=colour))
    assert (header.width, header.height, header.frames, header.scans) == (7, 5, 1, 1)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (png(0, 5), "its size is 0 x 5"),
        (png(5, 0), "its size is 5 x 0"),
        (png(2**31, 5, pixels=b""), "its size is 2147483648 x 5"),
        (png(4, 4, depth=3, colour=0), "3 bits of colour type 0"),
        (png(4, 4, depth=16, colour=3), "16 bits of colour type 3"),
        (png(4, 4, colour=5, pixels=b""), "8 bits of colour type 5"),
        (png(4, 4).replace(b"\x08\x02\0\0\0", b"\x08\x02\0\0\x02"), r"methods \[0, 0, 2\]"),
        (png(4, 4).replace(b"\x08\x02\0\0\0", b"\x08\x02\0\x01\0"), r"methods \[0, 1, 0\]"),
        (png(4, 4, pixels=b""), "it is cut short before its pixels"),
        (png(4, 4, png_chunk(b"IHDR", bytes(13))), "a chunk b'IHDR' where none may be"),
        (png(4, 4, png_chunk(b"fdAT", bytes(9))), "a chunk b'fdAT' where none may be"),
        (png(4, 4, png_chunk(b"\0\0\0\0")), "a chunk b'.*' where none may be"),
        (b"\x89PNG\r\n\x1a\n", "it does not begin with its size"),
        (png(4, 4)[:20], "it is cut short before its pixels"),
        (png(4, 4)[:37], "it is cut short before its pixels"),
        (b"\x89PNG\r\n\x1a\n" + png_chunk(b"tEXt") + png(4, 4)[8:], "it does not begin with its size"),
    ],
)
def test_what_no_decoder_takes_is_damaged(body: bytes, sentence: str) -> None:
    with pytest.raises(DamagedImage, match=sentence):
        read_png_header(body)


def test_what_is_broken_behind_the_pixels_is_left_to_the_decoder() -> None:
    body = png(4, 4)
    assert read_png_header(body[: body.index(b"IEND") - 4] + b"\0\0\0\x05\x01\x02\x03\x04junk").width == 4


def test_nothing_behind_the_end_counts() -> None:
    assert read_png_header(png(4, 4) + bombs.apng(9)[33:]).frames == 1


@pytest.mark.parametrize("frames", [1, 2, 50, 2**31])
def test_frames_of_an_animation_are_read(frames: int) -> None:
    assert read_png_header(bombs.apng(frames)).frames == frames


def test_the_largest_of_several_numbers_of_frames_counts() -> None:
    chunks = [png_chunk(b"acTL", struct.pack(">II", frames, 0)) for frames in (0, 7, 3)]
    assert read_png_header(png(4, 4, *chunks)).frames == 7


def test_only_the_first_exif_says_which_way_up() -> None:
    turned, mirrored = (
        png_chunk(b"eXIf", b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHH", 1, 0x0112, 3, 1, orientation, 0))
        for orientation in (6, 2)
    )
    assert read_png_header(png(4, 4, turned, mirrored)).orientation == 6


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("name", PACKED)
def test_packed_texts_and_profiles_may_have_a_megabyte_together(name: bytes, behind: bool) -> None:
    assert read_png_header(bombs.packed_png(name, MEGABYTE, behind=behind)).width == 8
    assert read_png_header(bombs.packed_png(name, MEGABYTE // 8, count=8, behind=behind)).width == 8
    for unpacked, count in ((MEGABYTE + 1, 1), (100 * MEGABYTE, 1), (MEGABYTE // 8 + 1, 8)):
        with pytest.raises(PictureTooCostly, match="more than 1048576 bytes when unpacked"):
            read_png_header(bombs.packed_png(name, unpacked, count=count, behind=behind))


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"iTXt", b"key\0\0\0en\0key\0" + bytes(2 * MEGABYTE)),
        png_chunk(b"tEXt", b"key\0" + bytes(2 * MEGABYTE)),
        png_chunk(b"iTXt", b"key\0\1\0en\0" + b"x" * 2 * MEGABYTE),
        png_chunk(b"zTXt", b"x" * 2 * MEGABYTE),
        png_chunk(b"iCCP", b"key\0\0"),
        png_chunk(b"iTXt", b"key\0"),
        png_chunk(b"iTXt"),
        png_chunk(b"zTXt", b"key\0\0not packed at all"),
    ],
)
def test_texts_that_are_not_packed_or_broken_count_little(chunk: bytes) -> None:
    assert read_png_header(png(4, 4, chunk)).width == 4


def test_a_few_broken_profiles_do_not_stand_in_the_way_and_many_are_too_costly() -> None:
    broken = png_chunk(b"iCCP", b"key\0\0" + zlib.compress(bytes(range(256)) * 20, 0)[:-9] + b"\xff" * 9)
    assert len(broken) > 5000
    assert read_png_header(png(4, 4, broken * 4)).width == 4
    with pytest.raises(PictureTooCostly):
        read_png_header(png(4, 4, broken * 5))


def test_a_text_that_breaks_after_a_megabyte_counts_as_one() -> None:
    broken = png_chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(MEGABYTE + 1))[:-6] + b"\xff" * 9)
    with pytest.raises(PictureTooCostly):
        read_png_header(png(4, 4, broken))


def test_a_thousand_chunks_are_too_many_and_pixels_may_come_in_ten_times_as_many_pieces() -> None:
    assert read_png_header(bombs.many_chunks_png(1000)).width == 8
    with pytest.raises(PictureTooCostly, match="more than 1000 chunks besides its pixels"):
        read_png_header(bombs.many_chunks_png(1001))
    assert read_png_header(png(8, 8, pixels=png_chunk(b"IDAT") * 9999)).width == 8
    with pytest.raises(PictureTooCostly, match="more than 10000 chunks"):
        read_png_header(png(8, 8, pixels=png_chunk(b"IDAT") * 10_000))


def test_a_real_profile_passes() -> None:
    assert read_png_header(encode(make_picture(), icc_profile=bytes(range(256)) * 2000)).width == 48
