import numpy as np
import pytest
from pycocotools import mask as coco_mask

from training.data.layouts.outlines import Outlines, Runs, decode_runs, read_shape
from training.data.taxonomy import VOID


def test_run_lengths_are_decoded_as_pycocotools_does() -> None:
    rng = np.random.default_rng(0)
    for width, height in ((1, 1), (7, 5), (64, 48), (300, 200)):
        mask = np.asfortranarray(rng.integers(0, 2, (height, width), dtype=np.uint8).repeat(1, axis=0))
        mask[: height // 2] = 0
        encoded = coco_mask.encode(mask)
        assert (decode_runs(encoded["counts"].decode(), width, height) == mask.astype(bool)).all()
        assert coco_mask.area(encoded) == mask.sum()


def test_run_lengths_as_numbers_go_down_the_columns() -> None:
    # Two columns of three: the first has its last pixel, the second its first two.
    assert decode_runs([2, 3, 1], 2, 3).astype(int).tolist() == [[0, 1], [0, 1], [1, 0]]


@pytest.mark.parametrize("counts", [[1, 2], [7, -1], "o?6Y11O1O00"])
def test_runs_that_do_not_fill_the_picture_are_refused(counts: list[int] | str) -> None:
    with pytest.raises(ValueError, match=r"run lengths add up to .*; wanted 2 x 3 = 6"):
        decode_runs(counts, 2, 3)


def test_polygons_are_filled_as_pycocotools_does_but_for_their_rims() -> None:
    polygon = [4.0, 5.0, 44.0, 7.0, 50.0, 39.0, 20.0, 44.0]
    drawn = Outlines(64, 48, ((3, (tuple(polygon),)),)).draw()
    encoded = coco_mask.merge(coco_mask.frPyObjects([polygon], 48, 64))  # its decode() is deprecated by numpy
    wanted = decode_runs(encoded["counts"].decode(), 64, 48)
    assert set(np.unique(drawn)) == {0, 3}
    assert (wanted & (drawn == 3)).sum() / (wanted | (drawn == 3)).sum() > 0.97


def test_later_shapes_lie_over_earlier_ones_and_void_is_a_label() -> None:
    square = ((0.0, 0.0, 8.0, 0.0, 8.0, 8.0, 0.0, 8.0),)
    runs = Runs((64 - 8, 8))  # the last column of 8 x 8
    assert Outlines(8, 8, ((1, square), (VOID, runs))).draw()[4].tolist() == [1] * 7 + [VOID]


@pytest.mark.parametrize("value", [None, [], [[]], [[1, 2, 3, 4]], {}, {"counts": []}, "x", 3])
def test_what_is_no_outline_is_none(value: object) -> None:
    assert read_shape(value) is None
