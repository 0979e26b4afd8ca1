from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.pictures.imaging import Letterbox, decode, fit, letterbox
from service.pictures.resizing import resize
from tests.service.fakes import GOLDEN, make_picture


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
