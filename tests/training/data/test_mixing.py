from dataclasses import replace

import numpy as np
import pytest

from service.pictures.imaging import UInt8Array
from training.data.mixing import copy_paste, mosaic
from training.data.placement import Placement, Span, letterboxed
from training.data.taxonomy import VOID
from training.data.transforms import Boxes
from training.options.augment import AugmentConfig

SHAPES = [(40, 60), (80, 30), (50, 50), (33, 97)]  # height, width


def make_example(number: int) -> tuple[UInt8Array, Boxes]:
    """A picture that tells its number by its red, with two objects that are green, numbered throughout the four."""
    height, width = SHAPES[number]
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[:, :, 0] = 20 + number
    boxes = np.array([[2, 4, 12, 14], [width - 15, height - 20, width - 4, height - 5]], dtype=np.float32)
    for x1, y1, x2, y2 in boxes.astype(int):
        image[y1:y2, x1:x2, 1] = 200
    return image, Boxes(boxes, np.array([0, 1]) + number * 10)


EXAMPLES = [make_example(number) for number in range(4)]
CONFIG = AugmentConfig(scale=(0.5, 2.0), stretch=0.3)


def test_a_mosaic_is_four_quarters_round_a_point_and_no_padding() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        square, _ = mosaic(rng, EXAMPLES, size=96, config=CONFIG)
        shown = square[:, :, 0].astype(int) - 20
        x, y = np.argmax(shown[0] == 1), np.argmax(shown[:, 0] == 2)
        assert 0.19 * 96 < x < 0.81 * 96
        assert 0.19 * 96 < y < 0.81 * 96
        assert np.array_equal(shown, (np.arange(96)[:, None] >= y) * 2 + (np.arange(96) >= x))


def test_each_box_of_a_mosaic_holds_its_object_and_each_object_has_its_box() -> None:
    rng, config = np.random.default_rng(1), AugmentConfig(scale=(0.5, 2.0), stretch=0.3, min_visible=0, min_side_px=0)
    seen: set[int] = set()
    for _ in range(60):
        square, boxes = mosaic(rng, EXAMPLES, size=128, config=config)
        green = square[:, :, 1] > 100
        for box, label in zip(boxes.boxes.round().astype(int), boxes.labels, strict=True):
            x1, y1, x2, y2 = box.tolist()
            assert (square[y1:y2, x1:x2, 0] == 20 + label // 10).all()
            if min(x2 - x1, y2 - y1) > 4:  # half-way up a soft edge is the edge
                assert green[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].all()
            square[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1, 1] = 0
            seen.add(int(label))
        assert (square[:, :, 1] <= 100).all()
    assert seen == {0, 1, 10, 11, 20, 21, 30, 31}


def test_what_is_left_of_an_object_decides_whether_its_box_stays() -> None:
    counts = []
    for min_visible in (0.0, 0.5, 1.0):
        config = AugmentConfig(scale=(1.0, 3.0), min_visible=min_visible, min_side_px=0)
        rng = np.random.default_rng(2)
        counts.append(sum(len(mosaic(rng, EXAMPLES, size=96, config=config)[1].labels) for _ in range(20)))
    assert counts[0] > counts[1] > counts[2] > 0


def test_a_mosaic_needs_four_pictures() -> None:
    with pytest.raises(ValueError, match="zip"):
        mosaic(np.random.default_rng(0), EXAMPLES[:3], size=96, config=CONFIG)


def test_the_same_seed_makes_the_same_mosaic() -> None:
    first, again, other = (mosaic(np.random.default_rng(seed), EXAMPLES, size=96, config=CONFIG) for seed in (5, 5, 6))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1].boxes, again[1].boxes)
    assert not np.array_equal(first[0], other[0])


def make_source() -> tuple[UInt8Array, UInt8Array]:
    """A person with a border of void at 8..24, 8..40; far from it a patch of void that borders nothing."""
    image = np.full((64, 64, 3), 200, dtype=np.uint8)
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[4:28, 4:44] = VOID
    mask[8:24, 8:40] = 15
    mask[52:60, 48:60] = VOID
    return image, mask


def make_destination() -> tuple[UInt8Array, UInt8Array]:
    return np.full((64, 64, 3), 50, dtype=np.uint8), np.full((16, 16), 3, dtype=np.uint8)


def test_an_object_is_pasted_with_its_border_and_without_its_background() -> None:
    square, cells = copy_paste(*make_destination(), *make_source(), letterboxed((64, 64), 64))
    expected, labels = make_destination()
    expected[4:28, 4:44] = 200
    labels[1:7, 1:11] = VOID
    labels[2:6, 2:10] = 15
    assert np.array_equal(square, expected)
    assert np.array_equal(cells, labels)


def test_an_object_is_pasted_where_and_as_the_placement_says() -> None:
    image, mask = make_source()
    mask[mask == VOID] = 0
    half = Placement(Span(64, 32, 20, 64, mirrored=True), Span(64, 32, -8, 64))
    square, cells = copy_paste(*make_destination(), image, mask, half)
    expected, labels = make_destination()
    # Rows 8..24 become 4..12, then -4..4; columns 8..40 are 24..56 in the mirror, 12..28 at half size, then 32..48.
    expected[0:4, 32:48] = 200
    labels[0:1, 8:12] = 15
    assert np.array_equal(square, expected)
    assert np.array_equal(cells, labels)


def test_the_padding_round_a_source_is_not_pasted() -> None:
    image, mask = np.full((64, 64, 3), 200, dtype=np.uint8), np.full((64, 64), 15, dtype=np.uint8)
    square, cells = copy_paste(*make_destination(), image, mask, Placement(Span(64, 32, 16, 64), Span(64, 32, 8, 64)))
    expected, labels = make_destination()
    expected[8:40, 16:48] = 200
    labels[2:10, 4:12] = 15
    assert np.array_equal(square, expected)
    assert np.array_equal(cells, labels)


def test_a_source_without_objects_changes_nothing() -> None:
    image, mask = make_source()
    square, cells = copy_paste(*make_destination(), image, np.where(mask == 15, 0, mask), letterboxed((64, 64), 64))
    assert np.array_equal(square, make_destination()[0])
    assert np.array_equal(cells, make_destination()[1])


def test_the_callers_arrays_stay_as_they_are() -> None:
    destination, source = make_destination(), make_source()
    copy_paste(*destination, *source, letterboxed((64, 64), 64))
    mosaic(np.random.default_rng(0), EXAMPLES, size=96, config=CONFIG)
    for array, fresh in zip((*destination, *source), (*make_destination(), *make_source()), strict=True):
        assert np.array_equal(array, fresh)
    for number, (image, boxes) in enumerate(EXAMPLES):
        assert np.array_equal(image, make_example(number)[0])
        assert np.array_equal(boxes.boxes, make_example(number)[1].boxes)


def test_regions_of_a_mosaic_lie_where_boxes_of_the_same_place_lie() -> None:
    rng, config = np.random.default_rng(7), AugmentConfig(scale=(0.5, 2.0), stretch=0.3, min_visible=0, min_side_px=0)
    examples = []
    for number, (image, boxes) in enumerate(EXAMPLES):
        height, width = SHAPES[number]
        picture = np.array([[0, 0, width, height]], dtype=np.float32)
        unknown = np.arange(4)[None] == number
        scores = np.array([0.1, 0.2], dtype=np.float32) + number
        more = replace(boxes, ignored=boxes.boxes, ignored_labels=boxes.labels, areas=picture, unknown=unknown)
        examples.append((image, replace(more, scores=scores)))
    for _ in range(30):
        square, boxes = mosaic(rng, examples, size=128, config=config)
        assert np.array_equal(boxes.ignored, boxes.boxes)
        assert np.array_equal(boxes.ignored_labels, boxes.labels)
        assert boxes.scores is not None
        assert boxes.scores == pytest.approx(boxes.labels // 10 + 0.1 + 0.1 * (boxes.labels % 10))
        for (x1, y1, x2, y2), unknown in zip(boxes.areas.astype(int).tolist(), boxes.unknown, strict=True):
            assert (square[y1:y2, x1:x2, 0] == 20 + np.flatnonzero(unknown)).all()
        assert (boxes.areas[:, 2:] - boxes.areas[:, :2]).prod(axis=1).sum() == 128 * 128


def test_rests_of_objects_are_ignored_in_a_mosaic() -> None:
    rng, config = np.random.default_rng(2), AugmentConfig(scale=(1.0, 3.0), min_visible=1, min_side_px=0)
    found = [mosaic(rng, EXAMPLES, size=96, config=config) for _ in range(10)]
    assert sum(len(boxes.ignored) for _, boxes in found) > 10
    for square, boxes in found:
        for (x1, y1, x2, y2), label in zip(boxes.ignored.round().astype(int), boxes.ignored_labels, strict=True):
            assert (square[y1:y2, x1:x2, 0] == 20 + label // 10).all()
