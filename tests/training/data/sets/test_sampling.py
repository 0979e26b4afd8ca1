"""How often each picture is drawn: by its source's weight, and by its rarest class."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.datasets import ClassificationSample, DetectionSample, SegmentationSample
from training.data.layouts.outlines import Outlines
from training.data.sets.sampling import count_repeats, find_classes, find_shares, resample
from training.data.taxonomy import VOID

BOX = np.array([[0, 0, 9, 9]], dtype=np.float32)


def with_boxes(*labels: int) -> DetectionSample:
    boxes, wanted = BOX.repeat(len(labels), axis=0), np.array(labels, dtype=np.int64)
    return DetectionSample(Path(), boxes, wanted, BOX[:0], np.zeros(0, dtype=np.int64))


def test_a_picture_is_repeated_as_its_rarest_class_asks_for() -> None:
    # Class 0 is in all 8 pictures, class 1 in 2, class 2 in 1; the threshold is a half.
    classes = [[0], [0], [0], [0], [0], [0], [0, 1], [0, 1, 2]]
    factors = count_repeats([np.array(own) for own in classes], 0.5)
    assert factors.tolist() == pytest.approx([1] * 6 + [2**0.5, 2])


def test_a_picture_that_shows_nothing_comes_once() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert count_repeats([nothing, np.array([3])], 1.0).tolist() == pytest.approx([1, 2**0.5])
    assert count_repeats([nothing, nothing], 1.0).tolist() == [1, 1]


def test_weights_and_repeats_are_multiplied() -> None:
    samples = [with_boxes(0), with_boxes(0, 0), with_boxes(0), with_boxes(1)]
    shares = find_shares(samples, (3.0, 1.0, 1.0, 1.0), threshold=1.0, num_classes=2)
    assert shares is not None
    common, rare = (4 / 3) ** 0.5, 2.0
    expected = np.array([3 * common, common, common, rare])
    assert shares == pytest.approx(expected / expected.sum())


@pytest.mark.parametrize(("weights", "threshold"), [((), None), ((2.0, 2.0), None), ((), 0.1)])
def test_pictures_that_are_alike_have_no_shares(weights: tuple[float, ...], threshold: float | None) -> None:
    samples = [with_boxes(0), with_boxes(1)]
    assert find_shares(samples, weights, threshold=threshold, num_classes=2) is None


def test_classes_of_a_mask_are_read_without_its_picture(tmp_path: Path) -> None:
    mask = np.array([[0, 0, 2], [VOID, 2, 3]], dtype=np.uint8)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    sample = SegmentationSample(tmp_path / "no picture.jpg", tmp_path / "mask.png")
    assert find_classes(sample, 4).tolist() == [2, 3]
    values = tuple({0: 1, 2: 0, 3: VOID, VOID: 2}.get(value, -1) for value in range(256))
    assert find_classes(SegmentationSample(tmp_path, tmp_path / "mask.png", values), 4).tolist() == [1, 2]


def test_classes_of_outlines_boxes_and_whole_pictures() -> None:
    corners = ((0.0, 0.0, 9.0, 0.0, 9.0, 9.0),)
    outlines = Outlines(10, 10, ((2, corners), (VOID, corners), (1, corners), (2, corners)))
    assert find_classes(SegmentationSample(Path(), outlines), 4).tolist() == [1, 2]
    assert find_classes(with_boxes(3, 0, 3), 4).tolist() == [0, 3]
    assert find_classes(ClassificationSample(Path(), 5), 9).tolist() == [5]


def test_each_picture_is_drawn_its_share_of_times_rounded_up_or_down() -> None:
    weights = np.random.default_rng(1).uniform(0.1, 4, 200)
    shares = weights / weights.sum()
    rng, sums = np.random.default_rng(0), Counter[int]()
    for _ in range(50):
        drawn = resample(rng, shares)
        assert len(drawn) == 200
        copies = np.bincount(drawn, minlength=200)
        assert (np.abs(copies - 200 * shares) < 1).all()
        sums.update(drawn.tolist())
    assert [sums[i] / 50 for i in range(200)] == pytest.approx(200 * shares, abs=0.25)


def test_the_order_of_the_draws_has_no_rule() -> None:
    shares = np.array([0.5] + [0.5 / 99] * 99)
    first, again, other = (resample(np.random.default_rng(seed), shares).tolist() for seed in (0, 0, 1))
    assert first == again != other
    places = np.flatnonzero(np.array(first) == 0)
    assert len(places) == 50
    assert np.diff(places).max() > 3  # not every second one, and not all at once
    assert np.diff(places).min() == 1
    assert places[-1] > 80


def test_rounding_never_loses_a_draw() -> None:
    for count in range(1, 200):
        shares = np.full(count, 0.1) / np.full(count, 0.1).sum()
        assert sorted(resample(np.random.default_rng(count), shares).tolist()) == list(range(count))
