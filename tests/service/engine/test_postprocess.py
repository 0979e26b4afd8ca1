from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engine import postprocess
from service.engine.engine import Prediction
from service.pictures.imaging import fit
from tests.service.fakes import BOXES, LABELS, SCORES

NAMES = ("person", "bicycle", "car", "kite")


def make_prediction(**changes: NDArray[Any]) -> Prediction:
    values: dict[str, NDArray[Any]] = {
        "boxes": BOXES[:3],
        "scores": SCORES[:3],
        "labels": LABELS[:3],
        "mask": np.array([[0, 0], [2, 1]], dtype=np.uint8),
        "class_probs": np.array([0.2, 0.5, 0.2, 0.1], dtype=np.float32),
    }
    return Prediction(values | changes)


def test_boxes_are_told_in_pixels_of_the_original() -> None:
    place = fit(64, 32, 32)  # half its size
    found = postprocess.detections(make_prediction(), place, NAMES, score_threshold=0, max_detections=9)
    assert [detection.box for detection in found] == [(8, 8, 40, 24), (0, 0, 64, 32), (16, 16, 20, 20)]
    assert [(detection.label, detection.label_id) for detection in found] == [
        ("bicycle", 1),
        ("person", 0),
        ("kite", 3),
    ]


@pytest.mark.parametrize(
    ("threshold", "most", "count"), [(0.0, 9, 3), (0.6, 9, 2), (0.61, 9, 1), (1.0, 9, 0), (0.0, 2, 2)]
)
def test_threshold_is_inclusive_and_the_best_are_kept(threshold: float, most: int, count: int) -> None:
    threshold = float(np.float32(threshold))
    found = postprocess.detections(
        make_prediction(), fit(32, 32, 32), NAMES, score_threshold=threshold, max_detections=most
    )
    assert [round(detection.score, 2) for detection in found] == [0.9, 0.6, 0.2][:count]


def test_classes_are_sorted_and_ties_go_to_the_lower_id() -> None:
    scored = postprocess.classes(make_prediction(), ("a", "b", "c", "d"), top_k=3)
    assert [(item.label, item.label_id) for item in scored] == [("b", 1), ("a", 0), ("c", 2)]
    assert len(postprocess.classes(make_prediction(), ("a", "b", "c", "d"), top_k=99)) == 4


def test_segments_count_what_occurs_largest_first() -> None:
    prediction = make_prediction(mask=np.array([[2, 2], [0, 1]], dtype=np.uint8))
    found = postprocess.segments(prediction, fit(8, 8, 8), ("background", "cat", "dog", "unseen"), mask_stride=4)
    assert [(item.label, item.label_id, item.pixels) for item in found] == [
        ("dog", 2, 32),
        ("background", 0, 16),
        ("cat", 1, 16),
    ]
    assert sum(item.fraction for item in found) == pytest.approx(1)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 99))
def test_segments_count_the_pixels_of_the_mask(width: int, height: int, seed: int) -> None:
    ids = np.random.default_rng(seed).integers(0, 4, (8, 8), dtype=np.uint8)
    prediction, place = make_prediction(mask=ids), fit(width, height, 32)
    pixels = postprocess.mask(prediction, place, mask_stride=4)
    found = postprocess.segments(prediction, place, ("a", "b", "c", "d"), mask_stride=4)
    assert {item.label_id: item.pixels for item in found} == {
        int(label): int(count) for label, count in zip(*np.unique(pixels, return_counts=True), strict=True)
    }


def test_a_shifted_box_shifts_in_the_original() -> None:
    place = fit(64, 64, 32)
    shifted = make_prediction(boxes=BOXES[:3] + np.float32(3))
    before = postprocess.detections(make_prediction(), place, NAMES, score_threshold=0.8, max_detections=1)[0].box
    after = postprocess.detections(shifted, place, NAMES, score_threshold=0.8, max_detections=1)[0].box
    np.testing.assert_allclose(np.subtract(after, before), 6)
