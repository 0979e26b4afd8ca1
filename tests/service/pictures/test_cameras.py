from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageOps

from service.errors import DamagedImage, RequestError
from service.pictures.header import read_header
from service.pictures.imaging import UInt8Array, decode, decode_for
from service.pictures.mending import take_apart
from tests.attacks import bombs
from tests.attacks.cameras import (
    DAMAGED,
    HEIGHT,
    PICTURE,
    PLAIN,
    PROGRESSIVE,
    TURNED_BY_A_QUARTER,
    WHOLE_JPEGS,
    WHOLE_PNGS,
    WHOLE_WEBPS,
    WIDTH,
    before,
    behind_head,
)
from tests.attacks.sampling import adobe, sampled_jpeg
from tests.service.fakes import encode, make_picture

WHOLE = {
    f"{kind}: {name}": pair
    for kind, kinds in (("JPEG", WHOLE_JPEGS), ("PNG", WHOLE_PNGS), ("WebP", WHOLE_WEBPS))
    for name, pair in kinds.items()
}
YCC = PICTURE.convert("YCbCr")
# Inks as Adobe stores them.
INKS = ImageChops.invert(PICTURE.convert("CMYK"))
SAMPLINGS = ("4x2 1x1 1x1", "2x4 1x1 1x1", "3x1 1x1 1x1", "1x3 1x1 1x1", "1x4 1x1 1x1", "4x1 1x1 1x1", "2x2 2x1 1x1",
             "1x1 2x1 2x1", "4x1 2x1 2x1", "2x2 1x2 1x2", "2x1 2x1 2x1", "2x2 1x1 2x2")  # fmt: skip


def factors_of(text: str) -> list[tuple[int, int]]:
    return [(int(one[0]), int(one[2])) for one in text.split()]


def show_by_pillow(body: bytes) -> UInt8Array:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(body))).convert("RGB"))


@pytest.mark.parametrize(("body", "in_order"), WHOLE.values(), ids=WHOLE.keys())
def test_what_is_out_of_order_and_whole_is_decoded_as_if_it_were_in_order(body: bytes, in_order: bytes) -> None:
    np.testing.assert_array_equal(decode(body), decode(in_order))


@pytest.mark.parametrize("body", DAMAGED.values(), ids=DAMAGED.keys())
def test_what_lacks_a_piece_stays_refused(body: bytes) -> None:
    with pytest.raises(DamagedImage):
        decode(body)


@pytest.mark.parametrize("body", TURNED_BY_A_QUARTER.values(), ids=TURNED_BY_A_QUARTER.keys())
def test_every_way_to_say_which_way_up_a_picture_is_counts_as_for_pillow(body: bytes) -> None:
    assert read_header(body).orientation == 6
    upright = decode(PLAIN) if body.startswith(PLAIN[:2]) else np.asarray(PICTURE)
    np.testing.assert_array_equal(decode(body), np.rot90(upright, -1))
    assert decode_for(16, body)[1] == (HEIGHT, WIDTH)


def test_exif_goes_before_xmp() -> None:
    upright = bombs.jpeg_segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHIHH", 1, 0x0112, 3, 1, 1, 0))
    body = TURNED_BY_A_QUARTER["XMP alone"]
    assert read_header(behind_head(upright, body=body)).orientation == 1


@pytest.mark.parametrize("value", [b"", b"0", b"9", b"x"])
def test_xmp_that_makes_no_sense_is_upright(value: bytes) -> None:
    body = TURNED_BY_A_QUARTER["XMP alone"].replace(b'Orientation="6"', b'Orientation="%b"' % value.ljust(1))
    assert read_header(body).orientation == 1


@pytest.mark.parametrize("restart", [0, 3])
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_all_sampling_factors_are_decoded_as_pillow_decodes_them(
    sampling: str, interleaved: bool, restart: int
) -> None:
    body = sampled_jpeg(YCC, factors_of(sampling), interleaved=interleaved, restart=restart)
    pixels = decode(body)
    np.testing.assert_array_equal(pixels, show_by_pillow(body))
    assert np.abs(pixels.astype(int) - np.asarray(PICTURE)).mean() < 7


@pytest.mark.parametrize("transform", [0, 1, 2, 9])
@pytest.mark.parametrize("sampling", ["2x2 1x1 1x1 1x1", "2x2 1x1 1x1 2x2", "2x1 1x1 1x1 2x1", "1x1 1x1 1x1 1x1"])
def test_inks_are_read_as_pillow_reads_them_whatever_their_sampling_and_transform(
    sampling: str, transform: int
) -> None:
    body = sampled_jpeg(INKS, factors_of(sampling), head=adobe(transform))
    np.testing.assert_array_equal(decode(body), show_by_pillow(body))
    if transform == 0:
        assert np.abs(decode(body).astype(int) - np.asarray(PICTURE)).mean() < 3


def test_what_simplejpeg_decodes_is_known_from_the_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the usual way was not tried, or did not do")

    for name in ("decode_odd_jpeg", "decode_unusual_jpeg"):
        monkeypatch.setattr(f"service.pictures.imaging.{name}", fail)
    for sampling in ("1x1", "4x3", "1x1 1x1 1x1", "2x2 1x1 1x1", "1x3 1x3 1x3", "2x2 2x1 2x1", "4x1 1x1 1x1 4x1"):
        factors = factors_of(sampling)
        picture = {1: PICTURE.convert("L"), 3: YCC, 4: INKS}[len(factors)]
        head = adobe(0) if len(factors) == 4 else b""
        body = sampled_jpeg(picture, factors, head=head)
        assert read_header(body).is_usual
        decode(body)
    assert not read_header(sampled_jpeg(YCC, [(4, 2), (1, 1), (1, 1)])).is_usual


@pytest.mark.parametrize("restart", [0, 3])
def test_no_prefix_of_a_picture_in_unusual_sampling_passes_but_with_all_its_pixels(restart: int) -> None:
    body = sampled_jpeg(YCC, [(3, 1), (1, 1), (1, 1)], restart=restart)
    whole = decode(body)
    for length in [*range(0, len(body) - 30, 11), *range(len(body) - 30, len(body))]:
        try:
            pixels = decode(body[:length])
        except RequestError:
            assert length < len(body) - 2
        else:
            np.testing.assert_array_equal(pixels, whole)


def test_a_picture_ends_with_any_scan_that_is_complete_but_not_between_and_not_before_all_channels() -> None:
    scans = [at for at in range(len(PROGRESSIVE)) if PROGRESSIVE[at : at + 2] == b"\xff\xda"]
    tables = PROGRESSIVE.rindex(b"\xff\xc4", 0, scans[-1])
    assert decode(PROGRESSIVE[:tables]).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(DamagedImage, match="cut short between its scans"):
        decode(PROGRESSIVE[: tables + 9])
    apart = sampled_jpeg(YCC, [(2, 2), (1, 1), (1, 1)], interleaved=False)
    last = apart.rindex(b"\xff\xda")
    with pytest.raises(DamagedImage, match="before all of its channels have come"):
        decode(apart[:last])


def test_a_large_picture_out_of_order_is_reduced_too() -> None:
    body = encode(make_picture(800, 600), "JPEG", restart_marker_rows=1)
    pixels, size = decode_for(100, before(b"\xff\xd1", bytes(9), body=body))
    np.testing.assert_array_equal(pixels, decode_for(100, body)[0])
    assert (pixels.shape, size) == ((150, 200, 3), (800, 600))


def test_no_decoder_meets_metadata_of_a_jpeg_that_is_put_in_order() -> None:
    secret = [bombs.jpeg_segment(code, b"Photoshop 3.0\0 secret" * 9) for code in (0xE1, 0xE2, 0xED, 0xFE)]
    parts = take_apart(behind_head(*secret, b"\0"))
    assert b"secret" not in parts.write()
    assert len(parts.write()) <= len(PLAIN)


def test_stray_bytes_in_every_scan_of_many_cost_no_more_than_a_second() -> None:
    picture = encode(make_picture(1200, 900), "JPEG", progressive=True)
    last = picture[picture.rindex(b"\xff\xda") : -2]
    body = picture[:-2] + (bytes(30) + last) * 80 + picture[-2:]
    started = time.thread_time()
    with pytest.raises(DamagedImage):
        decode(body)
    assert time.thread_time() - started < 4


def test_more_restarts_than_can_be_looked_into_are_damage_where_something_is_wrong() -> None:
    body = encode(Image.new("L", (1000, 1000), 77), "JPEG", restart_marker_blocks=1)
    assert decode(body).shape == (1000, 1000, 3)
    with pytest.raises(DamagedImage, match="more than 10000 restarts"):
        decode(before(b"\xff\xd1", bytes(9), body=body))


@pytest.mark.parametrize(("shade", "is_clear"), [(40_000, True), (40_001, False)])
def test_one_shade_of_sixteen_bits_may_be_transparent(shade: int, is_clear: bool) -> None:
    wide = Image.fromarray(np.full((3, 4), 40_000, dtype=np.uint16))
    body = encode(wide)
    at = body.index(b"IDAT") - 4
    pixels = decode(body[:at] + bombs.png_chunk(b"tRNS", struct.pack(">H", shade)) + body[at:])
    assert pixels[0, 0].tolist() == ([255] * 3 if is_clear else [40_000 >> 8] * 3)


def test_one_colour_of_sixteen_bits_may_be_transparent() -> None:
    rows = b"".join(b"\0" + struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0, 0, 0) for _ in range(2))
    pixels = bombs.png_chunk(b"IDAT", zlib.compress(rows))
    clear = bombs.png_chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x5678, 0x9ABC))
    assert decode(bombs.png(2, 2, clear, depth=16, pixels=pixels))[0].tolist() == [[255] * 3, [0] * 3]
