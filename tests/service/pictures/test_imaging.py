from __future__ import annotations

import contextlib
import io
import time
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from service.errors import (
    DamagedImage,
    EmptyBody,
    PictureTooCostly,
    RequestError,
    TooManyPixels,
    UnsupportedImage,
)
from service.pictures import imaging
from service.pictures.header import sniff_kind
from service.pictures.imaging import UInt8Array, decode, decode_for, letterbox
from service.pictures.limits import PictureHeader, PictureLimits
from tests.attacks import bombs
from tests.service.fakes import GOLDEN, encode, make_picture

FORMATS = ("JPEG", "PNG", "WEBP")


def open_upright(body: bytes) -> UInt8Array:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(body))).convert("RGB"))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_are_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = encode(make_picture(48, 32), kind, exif=exif)
    upright = decode(body)
    assert upright.shape == ((32, 48, 3) if orientation < 5 else (48, 32, 3))
    np.testing.assert_array_equal(upright, open_upright(body))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientations_leave_the_picture(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode(encode(make_picture(48, 32), "JPEG", exif=exif)).shape == (32, 48, 3)


@pytest.mark.parametrize("kind", FORMATS)
def test_rgb_is_decoded_as_pillow_decodes_it(kind: str) -> None:
    body = encode(make_picture(61, 47), kind)
    np.testing.assert_array_equal(decode(body), open_upright(body))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_is_repeated(kind: str) -> None:
    pixels = decode(encode(Image.fromarray(make_picture()).convert("L"), kind))
    assert pixels.shape == (32, 48, 3)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_cmyk_is_converted() -> None:
    body = encode(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=100)
    red, green, blue = decode(body).reshape(-1, 3).mean(axis=0)
    assert red < 10
    assert green > 245
    assert blue > 245


def test_cmyk_is_read_as_pillow_reads_it_upright_and_reduced() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = encode(Image.fromarray(make_picture(480, 320)).convert("CMYK"), "JPEG", exif=exif)
    np.testing.assert_array_equal(decode(body), open_upright(body))
    pixels, original = decode_for(64, body)
    assert (pixels.shape, original) == ((120, 80, 3), (320, 480))


def test_four_inks_that_are_stored_as_luminance_and_chrominance_are_read_as_pillow_reads_them() -> None:
    body = encode(Image.fromarray(make_picture(48, 32)).convert("CMYK"), "JPEG")
    marker = body.index(b"Adobe") + 11
    stored_otherwise = body[:marker] + b"\x02" + body[marker + 1 :]
    assert not np.array_equal(decode(stored_otherwise), decode(body))
    np.testing.assert_array_equal(decode(stored_otherwise), open_upright(stored_otherwise))


@pytest.mark.parametrize(("colour", "colours", "alphas"), [(2, 3, 0), (4, 1, 1), (6, 3, 1)])
def test_sixteen_bits_of_colours_keep_the_upper_byte_too(colour: int, colours: int, alphas: int) -> None:
    wide = np.random.default_rng(0).integers(0, 2**16, (4, 5, colours + alphas)).astype(">u2")
    wide[..., colours:] = 2**16 - 1
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    body = bombs.png(5, 4, depth=16, colour=colour, pixels=bombs.png_chunk(b"IDAT", zlib.compress(rows)))
    np.testing.assert_array_equal(decode(body), np.broadcast_to((wide >> 8)[..., :colours], (4, 5, 3)))


def test_one_bit_is_black_and_white() -> None:
    picture = Image.new("1", (9, 5))
    picture.putpixel((8, 4), 1)
    pixels = decode(encode(picture))
    assert (pixels[4, 8].tolist(), int(pixels.sum())) == ([255] * 3, 3 * 255)


def test_sixteen_bits_keep_the_upper_byte() -> None:
    wide = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    pixels = decode(encode(Image.fromarray(wide)))
    np.testing.assert_array_equal(pixels[..., 1], wide >> 8)


def test_palettes_are_looked_up() -> None:
    picture = Image.fromarray(make_picture()).quantize(16)
    np.testing.assert_array_equal(decode(encode(picture)), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_lies_over_white(kind: str) -> None:
    rgba = np.zeros((8, 8, 4), dtype=np.uint8)
    rgba[:, 4:] = (255, 0, 0, 255)
    body = encode(Image.fromarray(rgba), kind, **({"lossless": True} if kind == "WEBP" else {}))
    pixels = decode(body)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 7].tolist() == [255, 0, 0]


def test_half_transparent_grey_is_blended() -> None:
    picture = Image.new("LA", (4, 4), (0, 128))
    assert decode(encode(picture))[0, 0].tolist() == pytest.approx([127] * 3, abs=1)


def test_a_transparent_palette_entry_is_white() -> None:
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([10, 20, 30])
    assert decode(encode(picture, transparency=0))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_that_is_allowed_counts_as_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    body = encode(
        frames[0], kind, save_all=True, append_images=frames[1:], **({} if kind == "PNG" else {"lossless": True})
    )
    assert decode(body, PictureLimits(max_frames=2))[0, 0].tolist() == [255, 0, 0]
    with pytest.raises(PictureTooCostly, match="an animation of 2 frames, the limit is 1"):
        decode(body)


def test_of_several_jpegs_in_one_file_the_first_counts_as_phones_mean_it() -> None:
    first, second = (Image.fromarray(make_picture(48, 32, seed)) for seed in (0, 1))
    body = encode(first, "MPO", save_all=True, append_images=[second])
    with Image.open(io.BytesIO(body)) as picture:
        assert (picture.format, getattr(picture, "n_frames", 1)) == ("MPO", 2)
    np.testing.assert_array_equal(decode(body), decode(encode(first, "JPEG")))


@pytest.mark.parametrize("kind", FORMATS)
def test_bytes_after_the_end_are_ignored(kind: str) -> None:
    body = encode(make_picture(), kind)
    np.testing.assert_array_equal(decode(body + b"and then some" * 99), decode(body))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_prefix_is_refused_or_decoded(kind: str) -> None:
    body = encode(make_picture(20, 14), kind)
    for length in range(1, len(body)):
        with contextlib.suppress(UnsupportedImage, DamagedImage):
            assert decode(body[:length]).shape == (14, 20, 3)


@pytest.mark.parametrize("kind", FORMATS)
def test_half_a_picture_is_damaged(kind: str) -> None:
    body = encode(make_picture(200, 150), kind)
    with pytest.raises(DamagedImage, match=f"the {kind} picture is damaged"):
        decode(body[: len(body) // 2])


def test_no_bytes_are_an_empty_body() -> None:
    with pytest.raises(EmptyBody):
        decode(b"")


def test_the_pixel_limit_is_exact() -> None:
    body = encode(make_picture(40, 25))
    assert decode(body, PictureLimits(max_pixels=1000)).shape == (25, 40, 3)
    with pytest.raises(TooManyPixels, match="40 x 25 pixels; the limit is 999"):
        decode(body, PictureLimits(max_pixels=999))


@pytest.mark.parametrize(
    "body",
    [
        bombs.png(50_000, 50_000, pixels=bombs.png_chunk(b"IDAT")),
        bombs.jpeg(bombs.jpeg_frame(50_000, 50_000), bombs.jpeg_scan()),
        bombs.pixel_bomb_webp(16_000, 16_000),
    ],
    ids=FORMATS,
)
def test_a_pixel_bomb_is_refused_by_its_header(body: bytes) -> None:
    with pytest.raises(TooManyPixels):
        decode(body)


def test_exif_with_many_entries_costs_nothing_and_says_nothing() -> None:
    exif = bombs.exif_bomb(60_000, 700_000)
    started = time.perf_counter()
    decode(bombs.png(8, 8, bombs.png_chunk(b"eXIf", exif)))
    # Pillow takes 0.3 s and warns of each, which would be an error here.
    assert time.perf_counter() - started < 0.1


def test_a_decoder_that_sees_another_size_than_the_header_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imaging, "check_picture", lambda body, _: PictureHeader(sniff_kind(body), 47, 32))
    for kind in FORMATS:
        with pytest.raises(DamagedImage):
            decode(encode(make_picture(48, 32), kind))


def test_a_machine_without_memory_is_no_fault_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("simplejpeg.decode_jpeg", fail)
    with pytest.raises(MemoryError):
        decode(encode(make_picture(), "JPEG"))


@pytest.mark.parametrize(("kind", "limit"), [("JPEG", 1), ("PNG", 1), ("WEBP", 48 * 32 // 2)])
def test_pillow_neither_warns_of_nor_refuses_what_the_limits_allow(
    kind: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # it refuses a WebP of more than twice as many
    assert decode(encode(make_picture(48, 32), kind)).shape == (32, 48, 3)


@given(
    st.binary(max_size=200), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\x00\x00\x00WEBPVP8 "])
)
@settings(max_examples=150, deadline=None)
def test_noise_behind_a_good_beginning_is_never_more_than_a_request_error(noise: bytes, start: bytes) -> None:
    with pytest.raises(RequestError):
        decode(start + noise)


@pytest.mark.parametrize(("longer", "factor"), [(719, 1), (720, 2), (1439, 2), (1440, 4), (2880, 8), (4000, 8)])
def test_a_large_jpeg_is_decoded_at_the_least_size_that_is_enough(longer: int, factor: int) -> None:
    body = encode(make_picture(longer, longer // 2), "JPEG", quality=95)
    pixels, original = decode_for(240, body)
    assert original == (longer, longer // 2)
    assert pixels.shape[1] == -(-longer // factor)
    square, place = letterbox(pixels, 240, (0, 0, 0), original=original)
    expected, expected_place = letterbox(decode(body), 240, (0, 0, 0))
    assert place == expected_place
    assert np.abs(square.astype(int) - expected.astype(int)).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_upright_too(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = encode(make_picture(800, 500), "JPEG", exif=exif)
    pixels, (width, height) = decode_for(160, body)
    whole = decode(body)
    assert whole.shape[:2] == (height, width)
    assert pixels.shape[0] * 2 == height
    assert np.abs(pixels.astype(int) - whole[::2, ::2].astype(int)).mean() < 3


def test_only_jpeg_is_reduced() -> None:
    pixels, original = decode_for(16, encode(make_picture(300, 200)))
    assert pixels.shape == (200, 300, 3)
    assert original == (300, 200)


def test_a_picture_of_real_detail_changes_little_when_it_is_reduced() -> None:
    body = (GOLDEN / "coffee.jpg").read_bytes()
    pixels, original = decode_for(120, body)
    assert pixels.shape[1] < original[0]
    square, _ = letterbox(pixels, 120, (0, 0, 0), original=original)
    expected, _ = letterbox(decode(body), 120, (0, 0, 0))
    assert np.abs(square.astype(int) - expected.astype(int)).mean() < 1
