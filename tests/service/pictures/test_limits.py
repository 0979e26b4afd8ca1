from __future__ import annotations

import dataclasses

import pytest
from pydantic import ValidationError

from service.errors import PictureTooCostly, RequestError, TooManyPixels
from service.pictures.header import check_picture
from service.pictures.limits import PictureHeader, PictureLimits
from service.settings import Settings
from tests.attacks import bombs

LIMITS = PictureLimits(
    max_pixels=1_000_000, max_side=4000, max_aspect=20, max_scans=30, max_scan_megapixels=10, max_frames=3
)


def header(width: int, height: int, *, frames: int = 1, scans: int = 1) -> PictureHeader:
    return PictureHeader("JPEG", width, height, frames=frames, scans=scans)


@pytest.mark.parametrize(
    "picture",
    [
        header(1000, 1000),
        header(1, 1),
        header(4000, 200),
        header(200, 4000),
        header(20, 1),
        header(100, 100, frames=3),
        header(100, 100, scans=30),
        header(1000, 1000, scans=10),
    ],
)
def test_what_reaches_the_limits_passes(picture: PictureHeader) -> None:
    LIMITS.check(picture)


@pytest.mark.parametrize(
    ("picture", "error", "sentence"),
    [
        (header(1001, 1000), TooManyPixels, "1001 x 1000 pixels; the limit is 1000000 in all"),
        (header(4001, 240), TooManyPixels, "4001 x 240 pixels; the limit is 4000 a side"),
        (header(240, 4001), TooManyPixels, "the limit is 4000 a side"),
        (header(21, 1), PictureTooCostly, "21 x 1 pixels; a side may be 20 times the other"),
        (header(10, 201), PictureTooCostly, "a side may be 20 times the other"),
        (header(100, 100, frames=4), PictureTooCostly, "an animation of 4 frames, the limit is 3"),
        (header(100, 100, scans=31), PictureTooCostly, "31 scans of 100 x 100 pixels; the limits are 30, and 10"),
        (header(1000, 1000, scans=11), PictureTooCostly, "11 scans of 1000 x 1000 pixels"),
    ],
)
def test_what_goes_beyond_a_limit_is_refused_and_told_why(
    picture: PictureHeader, error: type[RequestError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        LIMITS.check(picture)


def test_one_scan_is_never_too_many() -> None:
    dataclasses.replace(LIMITS, max_scan_megapixels=1, max_pixels=10**9, max_side=10**5).check(header(9000, 9000))


def test_the_costliest_picture_that_is_allowed_has_16_scans_of_25_megapixels() -> None:
    limits = PictureLimits()
    limits.check(header(5000, 5000, scans=16))
    with pytest.raises(PictureTooCostly):
        limits.check(header(5000, 5000, scans=17))


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (bombs.pixel_bomb_webp(5001, 5000), 413, "too_many_pixels"),
        (bombs.png(16_385, 100, pixels=bombs.png_chunk(b"IDAT")), 413, "too_many_pixels"),
        (bombs.jpeg(bombs.jpeg_frame(65_535, 65_535), bombs.jpeg_scan()), 413, "too_many_pixels"),
        (bombs.pixel_bomb_webp(201, 1), 422, "picture_too_costly"),
        (bombs.scan_bomb(400, 400, 100), 422, "picture_too_costly"),
        (bombs.apng(2), 422, "picture_too_costly"),
        (bombs.animated_webp(2), 422, "picture_too_costly"),
    ],
)
def test_bombs_have_a_status_and_a_code_by_default(body: bytes, status: int, code: str) -> None:
    with pytest.raises(RequestError) as refusal:
        check_picture(body, PictureLimits())
    assert (refusal.value.status, refusal.value.code) == (status, code)


def test_every_limit_is_a_setting() -> None:
    changed = {field.name: getattr(PictureLimits(), field.name) - 1 for field in dataclasses.fields(PictureLimits)}
    changed["max_frames"] = 7
    assert Settings().picture_limits == PictureLimits()
    assert Settings.model_validate(changed).picture_limits == PictureLimits(**changed)


@pytest.mark.parametrize("field", dataclasses.fields(PictureLimits), ids=lambda field: field.name)
def test_no_limit_can_be_nothing(field: dataclasses.Field[int]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({field.name: 0})
