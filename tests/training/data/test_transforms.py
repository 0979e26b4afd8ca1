from fractions import Fraction

import numpy as np
import pytest

from service.engine.contract import LetterboxRule
from service.pictures.imaging import UInt8Array, fit, letterbox
from training.data.taxonomy import VOID
from training.data.transforms import Boxes, flip, join_boxes, letterbox_mask, to_input

SIZES = [(40, 64), (64, 40), (97, 61), (500, 375), (64, 64), (3, 200)]  # width, height; in pixels


def make_image(width: int, height: int) -> UInt8Array:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def make_mask(width: int, height: int) -> UInt8Array:
    """Blocks of 16 px, each of one class."""
    blocks = np.random.default_rng(0).integers(0, 21, (height // 16 + 1, width // 16 + 1), dtype=np.uint8)
    return blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]


def make_boxes() -> Boxes:
    boxes = np.array([[2, 3, 11, 30], [20, 0, 40, 9]], dtype=np.float32)
    return Boxes(boxes, np.array([4, 7]))


def as_boxes(target: object) -> Boxes:
    assert isinstance(target, Boxes)
    return target


def test_a_hand_worked_flip() -> None:
    image, target = flip(make_image(40, 32), make_boxes())
    assert as_boxes(target).boxes.tolist() == [[29, 3, 38, 30], [0, 0, 20, 9]]
    assert as_boxes(target).boxes.dtype == np.float32
    assert as_boxes(target).labels.tolist() == [4, 7]
    assert np.array_equal(image[:, 0], make_image(40, 32)[:, 39])


def test_a_flipped_box_holds_the_mirror_image_of_what_it_held() -> None:
    image, boxes = make_image(40, 32), make_boxes()
    flipped, target = flip(image, boxes)
    for before, after in zip(boxes.boxes.astype(int), as_boxes(target).boxes.astype(int), strict=True):
        held = image[before[1] : before[3], before[0] : before[2]]
        holds = flipped[after[1] : after[3], after[0] : after[2]]
        assert np.array_equal(holds, held[:, ::-1])


def test_flipping_twice_changes_nothing() -> None:
    image, mask, boxes = make_image(40, 32), make_mask(40, 32), make_boxes()
    once, boxes_once = flip(image, boxes)
    twice, boxes_twice = flip(once, boxes_once)
    assert np.array_equal(twice, image)
    assert not np.array_equal(once, image)
    assert np.array_equal(as_boxes(boxes_twice).boxes, boxes.boxes)
    mask_twice = flip(*flip(image, mask))[1]
    assert isinstance(mask_twice, np.ndarray)
    assert np.array_equal(mask_twice, mask)


def test_a_mask_is_mirrored_with_its_picture_and_a_class_stays() -> None:
    image = make_image(40, 32)
    red = flip(image, image[:, :, 0])
    assert isinstance(red[1], np.ndarray)
    assert np.array_equal(red[0][:, :, 0], red[1])
    assert flip(image, 3)[1] == 3


def test_flipping_a_picture_without_boxes() -> None:
    nothing = Boxes(np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.int64))
    assert as_boxes(flip(make_image(40, 32), nothing)[1]).boxes.shape == (0, 4)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize(("size", "stride"), [(64, 4), (128, 1), (96, 8)])
def test_each_mask_cell_takes_the_pixel_under_its_centre_and_void_outside(
    width: int, height: int, size: int, stride: int
) -> None:
    mask = make_mask(width, height)
    place = fit(width, height, size)
    expected = np.full((size // stride, size // stride), VOID, dtype=np.uint8)
    for row in range(size // stride):
        for column in range(size // stride):
            x, y = (Fraction(2 * cell + 1, 2) * stride for cell in (column, row))  # exact: in input pixels
            if x < place.resized_width and y < place.resized_height:
                expected[row, column] = mask[
                    int(y * height / place.resized_height), int(x * width / place.resized_width)
                ]
    assert np.array_equal(letterbox_mask(mask, place, size=size, stride=stride), expected)


@pytest.mark.parametrize(("width", "height"), [(40, 64), (64, 40)])
def test_padding_is_void_and_the_picture_is_not(width: int, height: int) -> None:
    cells = letterbox_mask(make_mask(width, height), fit(width, height, 64), size=64, stride=4)
    rows, columns = height // 4, width // 4
    assert (cells[:rows, :columns] != VOID).all()
    assert (cells[rows:] == VOID).all()
    assert (cells[:, columns:] == VOID).all()


@pytest.mark.parametrize(("width", "height"), [(160, 120), (97, 128), (128, 128)])
def test_a_mask_comes_back_from_the_square_as_it_went_in(width: int, height: int) -> None:
    mask, place = make_mask(width, height), fit(width, height, 128)
    for stride, at_least in ((1, 0.95), (4, 0.85)):
        back = place.mask_to_original(letterbox_mask(mask, place, size=128, stride=stride), stride)
        assert back.shape == mask.shape
        assert (back == mask).mean() > at_least


@pytest.mark.parametrize(("width", "height"), [(60, 48), (40, 64), (128, 100)])
def test_enlarged_without_a_stride_a_mask_comes_back_exactly(width: int, height: int) -> None:
    mask, place = make_mask(width, height), fit(width, height, 128)
    back = place.mask_to_original(letterbox_mask(mask, place, size=128, stride=1), 1)
    assert np.array_equal(back, mask)


def test_the_square_is_the_one_that_serving_makes() -> None:
    image = make_image(40, 32)
    square, target = to_input(image, 3, size=64, mask_stride=4)
    assert np.array_equal(square, letterbox(image, 64, LetterboxRule().fill)[0])
    assert target == 3


def test_boxes_are_scaled_with_their_picture_and_keep_their_labels() -> None:
    _, target = to_input(make_image(40, 32), make_boxes(), size=80, mask_stride=4)
    assert as_boxes(target).boxes.tolist() == [[4, 6, 22, 60], [40, 0, 80, 18]]
    assert as_boxes(target).labels.tolist() == [4, 7]


def test_a_mask_is_brought_to_its_stride() -> None:
    _, target = to_input(make_image(64, 32), make_mask(64, 32), size=64, mask_stride=16)
    assert isinstance(target, np.ndarray)
    assert np.array_equal(target[:2], make_mask(64, 32)[::16, ::16])
    assert (target[2:] == VOID).all()


def test_the_callers_arrays_stay_as_they_are() -> None:
    image, mask, boxes = make_image(40, 32), make_mask(40, 32), make_boxes()
    for target in (mask, boxes):
        flip(image, target)
        to_input(image, target, size=64, mask_stride=4)
    assert np.array_equal(image, make_image(40, 32))
    assert np.array_equal(mask, make_mask(40, 32))
    assert np.array_equal(boxes.boxes, make_boxes().boxes)


def make_regions(*, scored: bool = True) -> Boxes:
    """Regions that lie as the boxes do, and the picture as an area."""
    boxes = make_boxes()
    return Boxes(
        boxes.boxes,
        boxes.labels,
        scores=np.array([0.5, 1], dtype=np.float32) if scored else None,
        ignored=boxes.boxes[::-1],
        ignored_labels=np.array([7, -1]),
        areas=np.array([[0, 0, 40, 32]], dtype=np.float32),
        unknown=np.array([[True, False]]),
    )


def assert_regions_follow(found: Boxes, area: list[float]) -> None:
    assert np.array_equal(found.ignored, found.boxes[::-1])
    assert found.areas.tolist() == [pytest.approx(area)]
    assert found.scores is not None
    assert found.scores.tolist() == [0.5, 1]
    assert found.ignored_labels.tolist() == [7, -1]
    assert found.unknown.tolist() == [[True, False]]


def test_regions_and_scores_are_mirrored_with_the_boxes() -> None:
    found = as_boxes(flip(make_image(40, 32), make_regions())[1])
    assert found.boxes.tolist() == [[29, 3, 38, 30], [0, 0, 20, 9]]
    assert_regions_follow(found, [0, 0, 40, 32])


def test_regions_and_scores_are_letterboxed_with_the_boxes() -> None:
    found = as_boxes(to_input(make_image(40, 32), make_regions(), size=80, mask_stride=4)[1])
    assert found.boxes.tolist() == [[4, 6, 22, 60], [40, 0, 80, 18]]
    assert_regions_follow(found, [0, 0, 80, 64])  # the padding is background of all classes


def test_a_selection_of_boxes_keeps_their_scores_and_all_regions() -> None:
    found = make_regions().select(np.array([False, True]))
    assert found.scores is not None
    assert (found.labels.tolist(), found.scores.tolist()) == ([7], [1])
    assert (len(found.ignored), len(found.areas)) == (2, 1)
    assert make_regions(scored=False).select(np.array([False, True])).scores is None


def test_joined_boxes_are_all_of_them_and_those_without_scores_are_sure() -> None:
    found = join_boxes([make_regions(scored=False), make_boxes(), make_regions()])
    assert found.labels.tolist() == [4, 7] * 3
    assert found.scores is not None
    assert found.scores.tolist() == [1, 1, 1, 1, 0.5, 1]
    assert found.ignored_labels.tolist() == [7, -1] * 2
    assert found.unknown.tolist() == [[True, False]] * 2
    assert (found.ignored.shape, found.areas.shape) == ((4, 4), (2, 4))
    assert join_boxes([make_boxes(), make_regions(scored=False)]).scores is None
    assert join_boxes([make_boxes(), make_boxes()]).areas.shape == (0, 4)
