from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from service.errors import DamagedImage, EmptyBody, RequestError, TooManyPixels, UnsupportedImage
from service.imaging import Letterbox, UInt8Array, decode, decode_for, fit, letterbox, resize, sniff_format
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
def test_an_animation_counts_as_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    body = encode(
        frames[0], kind, save_all=True, append_images=frames[1:], **({} if kind == "PNG" else {"lossless": True})
    )
    assert decode(body)[0, 0].tolist() == [255, 0, 0]


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


@pytest.mark.parametrize("body", [b"GIF89a", b"BM" + bytes(60), b"RIFF1234WAVE", b"<svg/>", b"\xff\xd8", b"\x89PNG"])
def test_other_first_bytes_are_unsupported(body: bytes) -> None:
    with pytest.raises(UnsupportedImage):
        sniff_format(body)


def test_the_pixel_limit_is_exact() -> None:
    body = encode(make_picture(40, 25))
    assert decode(body, max_pixels=1000).shape == (25, 40, 3)
    with pytest.raises(TooManyPixels, match="40 x 25 pixels; the limit is 999"):
        decode(body, max_pixels=999)


def test_a_pixel_bomb_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(TooManyPixels):
        decode(bomb + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))


@given(
    st.binary(max_size=200), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\x00\x00\x00WEBPVP8 "])
)
@settings(max_examples=150, deadline=None)
def test_noise_behind_a_good_beginning_is_never_more_than_a_request_error(noise: bytes, start: bytes) -> None:
    with pytest.raises(RequestError):
        decode(start + noise)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(16, 640))
def test_fit_fills_one_side_and_keeps_the_shape(width: int, height: int, size: int) -> None:
    place = fit(width, height, size)
    assert max(place.resized_width, place.resized_height) == size
    assert min(place.resized_width, place.resized_height) >= 1
    assert abs(place.resized_height - max(1, height * size / max(width, height))) <= 0.5
    assert abs(place.resized_width - max(1, width * size / max(width, height))) <= 0.5


@given(st.integers(1, 400), st.integers(1, 400))
def test_boxes_come_back_from_the_input(width: int, height: int) -> None:
    place = fit(width, height, 64)
    boxes = np.array([[0, 0, width, height], [width / 4, height / 4, width / 2, height / 3]], dtype=np.float32)
    np.testing.assert_allclose(place.boxes_to_original(place.boxes_to_input(boxes)), boxes, atol=1e-3)


def test_boxes_are_clipped_to_the_original() -> None:
    place = fit(100, 50, 32)  # 32 x 16 in the square
    boxes = place.boxes_to_original(np.array([[-4, 8, 40, 32]], dtype=np.float32))
    np.testing.assert_allclose(boxes, [[0, 25, 100, 50]])


def test_the_callers_boxes_are_not_changed() -> None:
    boxes = np.array([[0, 0, 99, 99]], dtype=np.float32)
    fit(10, 10, 20).boxes_to_original(boxes)
    assert boxes.tolist() == [[0, 0, 99, 99]]


@pytest.mark.parametrize(("width", "height"), [(48, 32), (7, 31), (64, 64), (1, 40), (97, 13)])
def test_each_pixel_of_a_mask_takes_the_cell_under_its_centre(width: int, height: int) -> None:
    size, stride = 64, 4
    mask = np.random.default_rng(0).integers(0, 21, (size // stride, size // stride), dtype=np.uint8)
    place = fit(width, height, size)
    full = place.mask_to_original(mask, stride)
    assert full.shape == (height, width)
    for y in range(height):
        for x in range(width):
            row = int((y + 0.5) * place.resized_height / height // stride)
            column = int((x + 0.5) * place.resized_width / width // stride)
            assert full[y, x] == mask[row, column]


def test_letterbox_puts_the_picture_top_left_and_fills_the_rest() -> None:
    square, place = letterbox(make_picture(48, 24), 32, (1, 2, 3))
    assert place == Letterbox(48, 24, 32, 16)
    np.testing.assert_array_equal(square[:16], resize(make_picture(48, 24), 32, 16))
    assert (square[16:] == (1, 2, 3)).all()


def test_letterbox_hands_out_a_square_of_its_own_each_time() -> None:
    first, _ = letterbox(make_picture(48, 24), 32, (9, 9, 9))
    first[:] = 0
    second, _ = letterbox(make_picture(48, 24), 32, (9, 9, 9))
    assert (second[16:] == 9).all()


def test_a_picture_of_the_inputs_size_passes_unchanged() -> None:
    picture = make_picture(32, 32)
    np.testing.assert_array_equal(letterbox(picture, 32, (0, 0, 0))[0], picture)


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(resize(stripes, 8, 8)[2:-2, 2:-2].astype(int)) <= 2
    assert resize(stripes, 8, 8)[4, 4, 0] == pytest.approx(127.5, abs=2)


def test_resize_stays_near_pillow() -> None:
    picture = decode((GOLDEN / "chelsea.jpg").read_bytes())
    pillow = np.asarray(Image.fromarray(picture).resize((128, 85), Image.Resampling.BILINEAR))
    assert np.abs(resize(picture, 128, 85).astype(int) - pillow).max() <= 2


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
