import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pictures.imaging import UInt8Array
from training.data.components import find_objects

VOID = 255


def draw(*rectangles: tuple[int, int, int, int, int], size: int = 64) -> UInt8Array:
    """Rectangles of (label, left, top, right, bottom), the later ones on top."""
    mask = np.zeros((size, size), dtype=np.uint8)
    for label, left, top, right, bottom in rectangles:
        mask[top:bottom, left:right] = label
    return mask


def find(mask: UInt8Array) -> list[tuple[int, ...]]:
    found = find_objects(mask)
    return [(label, *box) for label, box in zip(found.labels.tolist(), found.boxes.astype(int).tolist(), strict=True)]


def test_each_object_gets_its_box_from_top_to_bottom() -> None:
    rectangles = [(3, 5, 2, 25, 12), (1, 30, 20, 64, 64), (3, 0, 40, 20, 60)]
    assert find(draw(*rectangles)) == rectangles


def test_a_line_of_void_parts_two_objects_of_a_class() -> None:
    assert find(draw((2, 0, 0, 40, 20), (VOID, 19, 0, 20, 20))) == [(2, 0, 0, 19, 20), (2, 20, 0, 40, 20)]


def test_touching_objects_of_two_classes_are_two() -> None:
    assert find(draw((2, 0, 0, 20, 20), (5, 20, 0, 40, 20))) == [(2, 0, 0, 20, 20), (5, 20, 0, 40, 20)]


def test_corners_do_not_hold_together() -> None:
    assert len(find(draw((2, 0, 0, 20, 20), (2, 20, 20, 40, 40)))) == 2


def test_arms_that_meet_further_down_are_one_object() -> None:
    horseshoe = [(4, 0, 0, 10, 40), (4, 20, 5, 30, 40), (4, 0, 40, 30, 50)]
    assert find(draw(*horseshoe)) == [(4, 0, 0, 30, 50)]


def test_a_comb_is_one_object() -> None:
    teeth = [(4, left, left // 4, left + 2, 40) for left in range(0, 60, 4)]
    assert find(draw(*teeth, (4, 0, 40, 60, 44))) == [(4, 0, 0, 58 + 2, 44)]


def test_splinters_are_no_objects() -> None:
    large, splinter, other = (2, 0, 0, 40, 40), (2, 50, 50, 60, 60), (3, 50, 20, 58, 28)
    assert find(draw(large, splinter, other)) == [large, other]  # 100 of 1600 pixels; 64 of its own 64
    assert find(draw((2, 0, 0, 7, 9))) == []  # 63 pixels


@pytest.mark.parametrize("fill", [0, VOID])
def test_background_and_void_are_no_objects(fill: int) -> None:
    found = find_objects(np.full((8, 8), fill, dtype=np.uint8))
    assert found.boxes.shape == (0, 4)
    assert found.labels.shape == (0,)


@given(st.integers(0, 2**32 - 1))
def test_pieces_are_those_that_a_flood_fills(seed: int) -> None:
    coarse = np.random.default_rng(seed).choice([0, 0, 1, 2, VOID], (5, 6)).astype(np.uint8)
    mask = coarse.repeat(8, axis=0).repeat(8, axis=1)  # the smallest piece has 64 pixels, and no class has over 640
    boxes = set()
    left_over = {(row, column) for row in range(5) for column in range(6) if coarse[row, column] in {1, 2}}
    while left_over:
        edge = [left_over.pop()]
        piece = set(edge)
        while edge:
            row, column = edge.pop()
            for other in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if other in left_over and coarse[other] == coarse[row, column]:
                    left_over.remove(other)
                    piece.add(other)
                    edge.append(other)
        rows, columns = [row for row, _ in piece], [column for _, column in piece]
        label = int(coarse[min(piece)])
        boxes.add((label, 8 * min(columns), 8 * min(rows), 8 * max(columns) + 8, 8 * max(rows) + 8, len(piece)))
    largest = {label: max(box[5] for box in boxes if box[0] == label) for label in {box[0] for box in boxes}}
    assert set(find(mask)) == {box[:5] for box in boxes if box[5] >= 0.1 * largest[box[0]]}
