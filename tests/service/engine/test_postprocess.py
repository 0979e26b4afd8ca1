from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engine.engine import Prediction
from service.engine.postprocess import Answer
from service.pictures.imaging import Letterbox, fit
from tests.service.fakes import BOXES, LABELS, SCORES, make_contract

CONTRACT = make_contract(
    mask_stride=4,
    detection_classes=("person", "bicycle", "car", "kite"),
    segmentation_classes=("background", "cat", "dog", "unseen"),
    classification_classes=("a", "b", "c", "d"),
)


def make_answer(place: Letterbox, **changes: NDArray[Any]) -> Answer:
    values: dict[str, NDArray[Any]] = {
        "boxes": BOXES[:3],
        "scores": SCORES[:3],
        "labels": LABELS[:3],
        "mask": np.array([[0, 0], [2, 1]], dtype=np.uint8),
        "class_probs": np.array([0.2, 0.5, 0.2, 0.1], dtype=np.float32),
    }
    return Answer(Prediction(values | changes), place, CONTRACT)


def test_boxes_are_told_in_pixels_of_the_original() -> None:
    answer = make_answer(fit(64, 32, 32))  # half its size
    found = answer.detections(score_threshold=0, max_detections=9)
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
    found = make_answer(fit(32, 32, 32)).detections(score_threshold=threshold, max_detections=most)
    assert [round(detection.score, 2) for detection in found] == [0.9, 0.6, 0.2][:count]


@pytest.mark.parametrize(("own", "count"), [(0.1, 3), (0.3, 2), (0.7, 1)])
def test_without_a_threshold_it_is_the_models_own(own: float, count: int) -> None:
    answer = make_answer(fit(32, 32, 32))
    answer = dataclasses.replace(answer, contract=dataclasses.replace(CONTRACT, score_threshold=own))
    assert len(answer.detections(score_threshold=None, max_detections=9)) == count


def test_classes_are_sorted_and_ties_go_to_the_lower_id() -> None:
    answer = make_answer(fit(32, 32, 32))
    scored = answer.classes(top_k=3)
    assert [(item.label, item.label_id) for item in scored] == [("b", 1), ("a", 0), ("c", 2)]
    assert len(answer.classes(top_k=99)) == 4


def test_segments_count_what_occurs_largest_first() -> None:
    found = make_answer(fit(8, 8, 8), mask=np.array([[2, 2], [0, 1]], dtype=np.uint8)).segments()
    assert [(item.label, item.label_id, item.pixels) for item in found] == [
        ("dog", 2, 32),
        ("background", 0, 16),
        ("cat", 1, 16),
    ]
    assert sum(item.fraction for item in found) == pytest.approx(1)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 99))
def test_segments_count_the_pixels_of_the_mask(width: int, height: int, seed: int) -> None:
    ids = np.random.default_rng(seed).integers(0, 4, (8, 8), dtype=np.uint8)
    answer = make_answer(fit(width, height, 32), mask=ids)
    assert {item.label_id: item.pixels for item in answer.segments()} == {
        int(label): int(count) for label, count in zip(*np.unique(answer.mask(), return_counts=True), strict=True)
    }


def test_a_shifted_box_shifts_in_the_original() -> None:
    place = fit(64, 64, 32)
    (before,) = make_answer(place).detections(score_threshold=0.8, max_detections=1)
    (after,) = make_answer(place, boxes=BOXES[:3] + np.float32(3)).detections(score_threshold=0.8, max_detections=1)
    np.testing.assert_allclose(np.subtract(after.box, before.box), 6)
