from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.answers.polygons import Polygon, find_polygons
from service.engine.engine import load_engine
from service.engine.golden import GOLDEN_PICTURES
from service.pictures.imaging import UInt8Array, decode, letterbox
from service.settings import Settings


def fill(polygons: list[Polygon], height: int, width: int) -> NDArray[np.bool_]:
    """The even-odd rule at the centre of each pixel: an independent way back from polygons to a mask."""
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    inside = np.zeros((height, width), dtype=bool)
    for polygon in polygons:
        for ring in (polygon.outline, *polygon.holes):
            for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True):
                if y1 == y2:
                    continue
                crossed = np.flatnonzero((y1 > y) != (y2 > y))
                meets = (x2 - x1) * (y[crossed] - y1) / (y2 - y1) + x1
                inside[crossed] ^= x[None, :] < meets[:, None]
    return inside


def places(cells: int, pixels: int) -> NDArray[np.intp]:
    return ((np.arange(pixels) + 0.5) * (cells / pixels)).astype(np.intp)


def make_grid(height: int, width: int, classes: int, seed: int, smooth: int = 0) -> UInt8Array:
    noise = np.random.default_rng(seed).random((height, width, classes))
    for _ in range(smooth):
        shifts = ((0, 1), (0, -1), (1, 0), (-1, 0), (0, 0))
        noise = np.mean([np.roll(noise, shift, axis=(0, 1)) for shift in shifts], axis=0)
    class_ids: UInt8Array = noise.argmax(axis=2).astype(np.uint8)
    return class_ids


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    picture=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    classes=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_without_thinning_the_polygons_are_the_mask(
    size: tuple[int, int], picture: tuple[int, int], classes: int, seed: int
) -> None:
    cells = make_grid(*size, classes, seed)
    rows, columns = places(size[0], picture[0]), places(size[1], picture[1])
    mask = cells[rows][:, columns]
    found = find_polygons(cells, rows, columns, budget=0)
    assert list(found) == np.unique(mask).tolist()
    for class_id, polygons in found.items():
        np.testing.assert_array_equal(fill(polygons, *picture), mask == class_id)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("picture", [(480, 640), (80, 80), (1200, 300)])
def test_thinned_polygons_keep_an_iou_of_98_percent(picture: tuple[int, int], seed: int) -> None:
    cells = make_grid(80, 80, 3, seed, smooth=12)
    rows, columns = places(80, picture[0]), places(80, picture[1])
    mask = cells[rows][:, columns]
    exact, thinned = find_polygons(cells, rows, columns, budget=0), find_polygons(cells, rows, columns)
    for class_id, polygons in thinned.items():
        filled, wanted = fill(polygons, *picture), mask == class_id
        assert (filled & wanted).sum() / (filled | wanted).sum() >= 0.98
        assert count_corners(polygons) < count_corners(exact[class_id])


def count_corners(polygons: list[Polygon]) -> int:
    return sum(len(ring) for polygon in polygons for ring in (polygon.outline, *polygon.holes))


def test_the_masks_of_the_shipped_pictures_keep_an_iou_of_98_percent() -> None:
    engine = load_engine(Settings().model, threads=1)
    contract = engine.contract
    for path in sorted(GOLDEN_PICTURES.glob("*.jpg")):
        square, place = letterbox(decode(path.read_bytes()), contract.input_size, contract.letterbox.fill)
        (prediction,) = engine.predict([square])
        mask = place.mask_to_original(prediction.mask, contract.mask_stride)
        rows, columns = place.cells_of_pixels(contract.mask_stride)
        for class_id, polygons in find_polygons(prediction.mask, rows, columns).items():
            filled, wanted = fill(polygons, *mask.shape), mask == class_id
            assert (filled & wanted).sum() / (filled | wanted).sum() >= 0.98


def test_a_ring_has_its_hole_and_the_island_in_it_is_its_own() -> None:
    cells = np.zeros((7, 7), dtype=np.uint8)
    cells[1:6, 1:6] = 1
    cells[2:5, 2:5] = 0
    cells[3, 3] = 1
    found = find_polygons(cells, np.arange(7), np.arange(7), budget=0)
    ring, island = found[1]
    assert ring.outline == ((1, 1), (6, 1), (6, 6), (1, 6))
    assert [sorted(hole) for hole in ring.holes] == [sorted([(2, 2), (2, 5), (5, 5), (5, 2)])]
    assert (island.outline, island.holes) == (((3, 3), (4, 3), (4, 4), (3, 4)), ())
    assert ring.rings()[0] == [1, 1, 6, 1, 6, 6, 1, 6]
    around, between = found[0]
    assert [sorted(hole) for hole in around.holes] == [sorted([(1, 1), (1, 6), (6, 6), (6, 1)])]
    assert [sorted(hole) for hole in between.holes] == [sorted([(3, 3), (3, 4), (4, 4), (4, 3)])]


def test_pieces_that_touch_at_a_corner_are_two() -> None:
    cells = np.array([[1, 0], [0, 1]], dtype=np.uint8)
    found = find_polygons(cells, np.arange(2), np.arange(2))
    assert [len(polygons) for polygons in found.values()] == [2, 2]


def test_outlines_go_clockwise_and_holes_the_other_way() -> None:
    cells = np.ones((5, 5), dtype=np.uint8)
    cells[2, 2] = 0
    (polygon,) = find_polygons(cells, np.arange(5), np.arange(5))[1]

    def area(ring: tuple[tuple[int, int], ...]) -> float:
        return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True)) / 2

    assert area(polygon.outline) == 25
    assert [area(hole) for hole in polygon.holes] == [-1]
