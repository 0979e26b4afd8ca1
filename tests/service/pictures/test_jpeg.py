from __future__ import annotations

import struct

import pytest

from service.errors import DamagedImage, PictureTooCostly
from service.pictures.jpeg import count_scans, read_jpeg_header
from tests.attacks.bombs import jpeg, jpeg_frame, jpeg_scan, jpeg_segment, scan_bomb
from tests.service.fakes import encode, make_picture

FRAME, SCAN = jpeg_frame(40, 30), jpeg_scan()
PROGRESSIVE = jpeg_frame(40, 30, code=0xC2)
# Entropy-coded data with all that may lie in it and is no marker to stop at.
DATA = b"\x12\xff\x00\x34\xff\xd0\x56\xff\xd7\xff\xff\x01\x78"


def size_of(body: bytes) -> tuple[int, int]:
    header = read_jpeg_header(body)
    return header.width, header.height


@pytest.mark.parametrize("code", [0xC0, 0xC1, 0xC2])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_frames_that_decoders_take_are_read(code: int, channels: int) -> None:
    assert size_of(jpeg(jpeg_frame(40, 30, code=code, channels=channels), jpeg_scan(channels))) == (40, 30)


def test_segments_before_the_frame_are_passed_over_with_all_they_hold() -> None:
    thumbnail = jpeg(jpeg_frame(8, 8), SCAN)
    before = [jpeg_segment(code, thumbnail) for code in (0xE0, 0xE1, 0xED, 0xEF, 0xFE, 0xDB, 0xC4, 0xDD)]
    assert size_of(jpeg(*before, FRAME, SCAN)) == (40, 30)


@pytest.mark.parametrize(
    "stray", [b"\xff\xff\xff", b"\xff\xd3\xff\x01", b"junk", b"\0", b"\xff\0", b"\xff\0\xff\xff\0\1"]
)
def test_bytes_between_segments_and_markers_without_a_segment_are_passed_over(stray: bytes) -> None:
    assert size_of(jpeg(stray, FRAME, stray, SCAN)) == (40, 30)


@pytest.mark.parametrize(
    ("pieces", "sentence"),
    [
        ([FRAME, FRAME, SCAN], "several frames"),
        ([SCAN], "its pixels come before their size"),
        ([jpeg_frame(40, 0), SCAN], "its size is 40 x 0"),
        ([jpeg_frame(0, 30), SCAN], "its size is 0 x 30"),
        ([jpeg_frame(40, 30, bits=12), SCAN], "12 bits a channel, which is not decoded here"),
        ([jpeg_frame(40, 30, channels=2), SCAN], "2 channels"),
        ([jpeg_segment(0xC0, struct.pack(">BHHB", 8, 30, 40, 3)), SCAN], "3 channels in 8 bytes"),
        ([jpeg_frame(40, 30, code=0xC3), SCAN], "lossless, hierarchical or arithmetic-coded"),
        ([jpeg_frame(40, 30, code=0xC5), SCAN], "lossless, hierarchical or arithmetic-coded"),
        ([jpeg_frame(40, 30, code=0xC9), SCAN], "lossless, hierarchical or arithmetic-coded"),
        ([jpeg_segment(0xF7, b"LS"), FRAME, SCAN], "its header has a marker FF F7"),
        ([FRAME, b"\xff\xd8", SCAN], "its header has a marker FF D8"),
        ([b"\xff\xd9", FRAME, SCAN], "its header has a marker FF D9"),
        ([b"\xff\xe0\x00\x01", FRAME, SCAN], "a segment has no length"),
        ([bytes(2**15), FRAME, bytes(2**15 + 1), SCAN], "too many bytes between its segments"),
        ([bytes(2**16), FRAME, SCAN], "it is cut short before its pixels"),
        ([FRAME, jpeg_segment(0xDA, b"\x00\x00\x3f\x00")], "its first scan has 0 of 3 channels"),
        ([FRAME, jpeg_scan(4)], "its first scan has 4 of 3 channels"),
        ([FRAME], "it is cut short before its pixels"),
    ],
)
def test_what_no_decoder_takes_is_damaged(pieces: list[bytes], sentence: str) -> None:
    with pytest.raises(DamagedImage, match=sentence):
        read_jpeg_header(jpeg(*pieces))


def test_every_prefix_of_the_header_is_damaged() -> None:
    head = jpeg(jpeg_segment(0xE0, b"JFIF"), FRAME, SCAN)[:-2]
    end = len(head) - len(SCAN) + 5  # where the scan says how many channels it has
    assert size_of(head[:end]) == (40, 30)
    for length in range(3, end):
        with pytest.raises(DamagedImage):
            read_jpeg_header(head[:length])


def test_a_thousand_segments_are_too_many() -> None:
    assert size_of(jpeg(jpeg_segment(0xFE) * 990, FRAME, SCAN)) == (40, 30)
    with pytest.raises(PictureTooCostly, match="more than 1000 segments"):
        read_jpeg_header(jpeg(jpeg_segment(0xFE) * 1000, FRAME, SCAN))


def test_a_sequential_picture_whose_scan_has_all_channels_takes_one_scan_whatever_follows() -> None:
    assert read_jpeg_header(jpeg(FRAME, SCAN * 50)).scans == 1
    assert read_jpeg_header(jpeg(FRAME, jpeg_scan(1) * 3)).scans == 3


def test_scans_of_a_progressive_picture_are_counted() -> None:
    body = scan_bomb(40, 30, repeats=25)
    assert read_jpeg_header(body).scans == count_scans(body) == 31
    file = encode(make_picture(), "JPEG", progressive=True)
    assert read_jpeg_header(file).scans == count_scans(file) == 10


def test_scans_are_never_counted_too_few_and_no_further_than_anybody_allows() -> None:
    body = jpeg(PROGRESSIVE, jpeg_scan(1, DATA) * 20_000)
    assert read_jpeg_header(body).scans == 10_001
    assert count_scans(body) is None


def test_the_closer_look_counts_scans_between_other_segments() -> None:
    table, comment = jpeg_segment(0xC4, b"\xff\xda"), jpeg_segment(0xFE, b"\xff\xd9\xff\xda")
    body = jpeg(PROGRESSIVE, jpeg_scan(1, DATA), table, jpeg_scan(1, DATA), comment, b"\xff", jpeg_scan(1, DATA))
    assert count_scans(body) == 3
    assert read_jpeg_header(body).scans == 5


@pytest.mark.parametrize("gap", [0, 1, 2**16 - 40, 2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16])
def test_the_closer_look_sees_markers_wherever_they_lie(gap: int) -> None:
    body = jpeg(PROGRESSIVE, jpeg_scan(1, bytes(gap)), jpeg_scan(1, bytes(gap)), jpeg_scan(1))
    assert count_scans(body) == 3


def test_the_closer_look_ends_with_the_picture_or_the_bytes() -> None:
    body = jpeg(PROGRESSIVE, jpeg_scan(1, DATA))
    assert count_scans(body + jpeg_scan(1) * 9) == 1
    assert count_scans(body[:-2]) == 1
    assert count_scans(body[:-2] + b"\xff\xfe\xff") == 1


def test_what_is_too_dense_to_look_through_is_not_counted() -> None:
    assert count_scans(jpeg(PROGRESSIVE, jpeg_scan(1, b"\xff\x00" * 2**15))) is None
