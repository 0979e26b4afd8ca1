import io

import numpy as np
import pytest
from PIL import Image

from service.pictures.imaging import decode
from training.data.prepare.official import Size
from training.data.prepare.pixels import measure, shrink
from training.data.prepare.releases import PrepareError


def make_jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    """White on the left, black on the right."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, "JPEG", exif=exif)
    return body.getvalue()


def test_shrink_brings_the_longer_side_to_the_limit() -> None:
    body, size = shrink(make_jpeg(200, 100), "x.jpg", 50)

    assert size == Size(50, 25)
    assert decode(body).shape == (25, 50, 3)


def test_shrink_writes_upright_pixels() -> None:
    body, size = shrink(make_jpeg(200, 100, orientation=6), "x.jpg", 100)  # 6: to be turned clockwise

    assert size == Size(50, 100)
    with Image.open(io.BytesIO(body)) as picture:
        assert not picture.getexif()
        pixels = np.asarray(picture)
    assert pixels[:40].mean() > 250
    assert pixels[60:].mean() < 5


def test_shrink_leaves_a_picture_within_the_limit_byte_for_byte() -> None:
    body = make_jpeg(200, 100, orientation=6)

    assert shrink(body, "x.jpg", 200) == (body, Size(100, 200))


def test_measure_names_a_picture_that_cannot_be_decoded() -> None:
    with pytest.raises(PrepareError, match=r"^train2017/x\.jpg: .*; unpack or download the release again$"):
        measure(make_jpeg(20, 10)[:-200], "train2017/x.jpg")
