from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from service.engine.contract import LetterboxRule
from service.pictures.imaging import UInt8Array
from training.data.geometry import place_boxes, place_image, place_map, place_mask
from training.data.placement import Placement, Span, draw_placement, letterboxed
from training.data.taxonomy import VOID
from training.data.transforms import Boxes, flip, to_input

FILL = LetterboxRule().fill
PICTURES = [(48, 64), (64, 40), (97, 31), (300, 200)]  # height, width


def make_image(height: int, width: int) -> UInt8Array:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def make_boxes(*boxes: tuple[float, float, float, float]) -> Boxes:
    count = len(boxes)
    return Boxes(np.array(boxes, dtype=np.float32), np.arange(count) + 10)


def draw_many(picture: tuple[int, int], count: int, size: int = 64) -> list[Placement]:
    rng = np.random.default_rng(3)
    return [
        draw_placement(rng, picture, (size, size), scale=(0.4, 3), stretch=0.3, mirrored=bool(number % 2))
        for number in range(count)
    ]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("height", "width"), PICTURES)
def test_letterboxed_and_mirrored_all_is_bit_for_bit_what_it_was(height: int, width: int, mirrored: bool) -> None:
    image, mask = make_image(height, width), make_image(height, width)[:, :, 0] % 21
    boxes = make_boxes((2, 3, 11, 30), (20.5, 0, 31, 9.25))
    place = letterboxed((height, width), 64, mirrored=mirrored)
    square, cells = to_input(*(flip(image, mask) if mirrored else (image, mask)), size=64, mask_stride=4)
    _, moved = to_input(*(flip(image, boxes) if mirrored else (image, boxes)), size=64, mask_stride=4)
    assert isinstance(moved, Boxes)
    assert isinstance(cells, np.ndarray)
    assert np.array_equal(place_image(image, place, FILL), square)
    assert np.array_equal(place_mask(mask, place, 4), cells)
    placed = place_boxes(boxes, place, min_side_px=0, min_visible=0)
    assert placed.boxes == pytest.approx(moved.boxes, abs=1e-4)
    assert placed.labels.tolist() == moved.labels.tolist() == [10, 11]


def test_a_cropped_picture_lies_off_by_a_pixel_at_most() -> None:
    y, x = np.mgrid[:120, :160].astype(np.uint8)
    coordinates = np.stack([x, y, x], axis=2)
    for place in draw_many((120, 160), 60):
        canvas = place_image(coordinates, place, FILL).astype(np.float32)
        for channel, span in enumerate((place.x, place.y)):
            seen = canvas[place.y.visible, place.x.visible, channel]
            along = seen.T if span is place.y else seen
            off = span.to_canvas(along + 0.5) - (np.arange(span.visible.start, span.visible.stop) + 0.5)
            assert np.abs(off).max() < 1.5  # the half pixel, and what the filter lacks at the edge
            assert np.abs(off).mean() < 0.6
        canvas[place.y.visible, place.x.visible] = FILL
        assert (canvas == FILL).all()


def test_each_cell_takes_the_pixel_under_its_centre_and_void_outside() -> None:
    mask = make_image(45, 61)[:, :, 0] % 21
    for place in draw_many((45, 61), 8, size=32):
        for stride in (1, 4):
            expected = np.full((32 // stride, 32 // stride), VOID)
            for row, column in np.ndindex(expected.shape):
                x, y = (  # exact, in pixels of the picture
                    (Fraction(2 * cell + 1, 2) * stride - span.offset) * span.length / span.resized
                    for cell, span in ((column, place.x), (row, place.y))
                )
                if 0 <= x < 61 and 0 <= y < 45:
                    expected[row, column] = mask[int(y), 60 - int(x) if place.x.mirrored else int(x)]
            assert np.array_equal(place_mask(mask, place, stride), expected)


def bounds(region: NDArray[np.bool_]) -> list[float]:
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_image_mask_boxes_and_map_stay_together() -> None:
    """Paint a rectangle, place everything, find it again in each."""
    rng = np.random.default_rng(4)
    seen = 0
    for place in draw_many((90, 120), 300, size=96):
        (x1, y1), (width, height) = rng.integers(0, (80, 50)).tolist(), rng.integers(20, 40, 2).tolist()
        x2, y2 = x1 + width, y1 + height
        image, mask = np.zeros((90, 120, 3), dtype=np.uint8), np.zeros((90, 120), dtype=np.uint8)
        image[y1:y2, x1:x2], mask[y1:y2, x1:x2] = (255, 0, 0), 7
        boxes = place_boxes(make_boxes((x1, y1, x2, y2)), place, min_side_px=4, min_visible=0)
        if not len(boxes.boxes):
            continue
        seen += 1
        box = boxes.boxes[0].tolist()
        square = place_image(image, place, (0, 0, 0))
        assert bounds(square[:, :, 0] > 127) == pytest.approx(box, abs=1.5)
        assert bounds(place_mask(mask, place, 1) == 7) == pytest.approx(box, abs=0.51)
        values, valid = place_map((mask == 7)[:, :, None].astype(np.float32), place, 2)
        assert np.multiply(bounds(values[:, :, 0] > 0.5), 2) == pytest.approx(box, abs=2.01)
        assert np.array_equal(valid, place_mask(mask, place, 2) != VOID)
    assert seen > 100


def test_hand_worked_boxes() -> None:
    # Twice as large, 20 px to the left of a canvas of 40 x 40.
    place = Placement(Span(40, 80, -20, 40), Span(20, 40, 0, 40))
    boxes = make_boxes((15, 5, 25, 15), (5, 0, 15, 10), (0, 0, 9, 9), (29, 1, 40, 3), (12, 1, 13, 9))
    placed = place_boxes(boxes, place, min_side_px=3, min_visible=0.3)
    # Whole; half of it; outside; 2 of 22 px; only 2 px wide.
    assert placed.boxes.tolist() == [[10, 10, 30, 30], [0, 0, 10, 20]]
    assert placed.boxes.dtype == np.float32
    assert placed.labels.tolist() == [10, 11]
    assert place_boxes(boxes, place, min_side_px=3, min_visible=0.51).labels.tolist() == [10]
    assert place_boxes(boxes, place, min_side_px=0, min_visible=0).labels.tolist() == [10, 11, 13, 14]


def test_hand_worked_mirrored_boxes() -> None:
    place = Placement(Span(40, 80, -20, 40, mirrored=True), Span(20, 40, 0, 40))
    placed = place_boxes(make_boxes((10, 5, 20, 15)), place, min_side_px=0, min_visible=0)
    assert placed.boxes.tolist() == [[20, 10, 40, 30]]  # 20..30 of the mirror image


def test_a_picture_without_boxes() -> None:
    nothing = Boxes(np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.int64))
    placed = place_boxes(nothing, letterboxed((20, 30), 64), min_side_px=3, min_visible=0.3)
    assert placed.boxes.shape == (0, 4)
    assert placed.labels.shape == (0,)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("side", [5, 16, 40])
def test_a_map_is_resized_as_torch_does_it(side: int, mirrored: bool) -> None:
    values = np.random.default_rng(0).normal(size=(side, side, 3)).astype(np.float32)
    placed, valid = place_map(values, letterboxed((30, 30), 64, mirrored=mirrored), 4)
    turned = torch.from_numpy(values[:, ::-1].copy() if mirrored else values).permute(2, 0, 1)
    expected = F.interpolate(turned[None], size=(16, 16), mode="bilinear", align_corners=False)[0]
    assert placed == pytest.approx(expected.permute(1, 2, 0).numpy(), abs=1e-5)
    assert valid.all()


def test_a_map_of_coordinates_tells_each_cell_where_it_comes_from() -> None:
    y, x = np.mgrid[:30, :40] * 4 + 2  # centres of 30 x 40 cells that cover 120 x 160 px
    values = np.stack([x, y], axis=2).astype(np.float16)
    for place in draw_many((120, 160), 40, size=96):
        placed, valid = place_map(values, place, 8)
        assert placed.dtype == np.float16
        assert (placed[~valid] == 0).all()
        for row, column in np.argwhere(valid):
            source = placed[row, column].astype(np.float32)
            centre = [place.x.to_canvas(source[:1]).item(), place.y.to_canvas(source[1:]).item()]
            if (source > 3).all() and source[0] < 157 and source[1] < 117:  # at its edges a map is constant
                assert centre == pytest.approx([column * 8 + 4, row * 8 + 4], abs=0.5)


def test_the_callers_arrays_stay_as_they_are() -> None:
    image, boxes = make_image(48, 64), make_boxes((2, 3, 11, 30))
    for place in draw_many((48, 64), 4):
        place_image(image, place, FILL)
        place_mask(image[:, :, 0], place, 4)
        place_boxes(boxes, place, min_side_px=0, min_visible=0)
    assert np.array_equal(image, make_image(48, 64))
    assert boxes.boxes.tolist() == [[2, 3, 11, 30]]


def test_regions_lie_where_boxes_of_the_same_place_lie() -> None:
    rng = np.random.default_rng(5)
    for place in draw_many((90, 120), 100, size=96):
        corners = rng.uniform(0, (110, 80), (4, 2))
        sides = np.concatenate([corners, corners + rng.uniform(1, 10, (4, 2))], axis=1).astype(np.float32)
        picture = np.array([[0, 0, 120, 90]], dtype=np.float32)
        boxes = Boxes(sides, np.arange(4), ignored=sides, ignored_labels=np.arange(4) - 1, areas=picture)
        placed = place_boxes(boxes, place, min_side_px=0, min_visible=0)
        assert np.array_equal(placed.ignored, placed.boxes)
        assert np.array_equal(placed.ignored_labels, placed.labels - 1)
        x, y = place.x.visible, place.y.visible
        assert placed.areas.tolist() == [[x.start, y.start, x.stop, y.stop]]


def test_what_is_left_of_a_box_that_is_too_small_is_ignored() -> None:
    place = Placement(Span(40, 80, -20, 40), Span(20, 40, 0, 40))
    given = make_boxes((15, 5, 25, 15), (5, 0, 15, 10), (0, 0, 9, 9), (29, 1, 40, 3), (12, 1, 13, 9))
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5], dtype=np.float32)
    boxes = replace(given, scores=scores, ignored=given.boxes[:1], ignored_labels=np.array([3]))
    placed = place_boxes(boxes, place, min_side_px=3, min_visible=0.6)
    # Half of one is left, 2 of 22 px of another, and one is 2 px wide; the one outside leaves nothing.
    assert placed.labels.tolist() == [10]
    assert placed.scores is not None
    assert placed.scores.tolist() == pytest.approx([0.1])
    assert placed.ignored.tolist() == [[10, 10, 30, 30], [0, 0, 10, 20], [38, 2, 40, 6], [4, 2, 6, 18]]
    assert placed.ignored_labels.tolist() == [3, 11, 13, 14]
