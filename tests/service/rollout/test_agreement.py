from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.engine import Engine, Prediction
from service.engine.postprocess import Answer, Detection
from service.pictures.imaging import fit
from service.rollout.shadow import compare, compute_box_f1, compute_iou, compute_mask_iou
from tests.service.fakes import SIZE, FakeSession, make_contract, make_picture

Box = tuple[float, float, float, float]


def found(label: str, box: Box, score: float = 0.9) -> Detection:
    return Detection(box, label, 0, score)


def test_mask_iou_is_the_mean_over_the_classes_of_either() -> None:
    one = np.array([[0, 0, 1, 1]], dtype=np.uint8)
    two = np.array([[0, 0, 0, 2]], dtype=np.uint8)
    # background 2 of 3, class 1 nothing of 2, class 2 nothing of 1
    assert compute_mask_iou(one, two) == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert compute_mask_iou(one, one) == 1.0


@pytest.mark.parametrize(
    ("one", "two", "f1"),
    [
        ([], [], 1.0),
        ([found("cat", (0, 0, 10, 10))], [], 0.0),
        ([found("cat", (0, 0, 10, 10))], [found("cat", (0, 0, 10, 6))], 1.0),
        ([found("cat", (0, 0, 10, 10))], [found("cat", (0, 0, 10, 4))], 0.0),
        ([found("cat", (0, 0, 10, 10))], [found("dog", (0, 0, 10, 10))], 0.0),
        # one partner each, and the better one
        ([found("cat", (0, 0, 10, 10))] * 2, [found("cat", (0, 0, 10, 10))], 2 / 3),
        (
            [found("cat", (0, 0, 10, 10)), found("cat", (0, 0, 10, 6))],
            [found("cat", (0, 0, 10, 6)), found("cat", (0, 0, 10, 10))],
            1.0,
        ),
    ],
)
def test_box_f1(one: list[Detection], two: list[Detection], f1: float) -> None:
    assert compute_box_f1(one, two) == pytest.approx(f1)
    assert compute_box_f1(two, one) == pytest.approx(f1)


sides = st.floats(0, 100, allow_nan=False)


@given(st.tuples(sides, sides, sides, sides), st.tuples(sides, sides, sides, sides))
def test_iou_is_symmetric_and_a_share(one: Box, two: Box) -> None:
    a = (min(one[0], one[2]), min(one[1], one[3]), max(one[0], one[2]), max(one[1], one[3]))
    b = (min(two[0], two[2]), min(two[1], two[3]), max(two[0], two[2]), max(two[1], two[3]))
    assert compute_iou(a, b) == compute_iou(b, a)
    assert 0 <= compute_iou(a, b) <= 1 + 1e-9


def test_boxes_are_compared_at_the_threshold_of_each_model() -> None:
    (said,) = Engine(FakeSession(), make_contract()).predict([make_picture(SIZE, SIZE)])
    two, one = (Answer(said, fit(60, 40, SIZE), make_contract(score_threshold=least)) for least in (0.5, 0.7))
    assert compare(two, two).box_f1 == 1.0
    assert compare(two, one).box_f1 == pytest.approx(2 * 1 / (2 + 1))  # boxes of 0.9 and 0.6, and of 0.9


def test_models_with_other_inputs_are_compared_on_the_original() -> None:
    contract, place = make_contract(), fit(60, 40, SIZE)
    (said,) = Engine(FakeSession(), contract).predict([make_picture(SIZE, SIZE)])
    answer = Answer(said, place, contract)
    agreement = compare(answer, answer)
    assert (agreement.top_1, agreement.mask_iou, agreement.box_f1) == (1.0, 1.0, 1.0)
    double = Prediction({**said.arrays, "boxes": 2 * said.boxes, "mask": said.mask.repeat(2, 0).repeat(2, 1)})
    larger = make_contract(input_size=2 * SIZE)
    agreement = compare(answer, Answer(double, fit(60, 40, 2 * SIZE), larger))
    assert agreement.top_1 == 1.0
    assert agreement.box_f1 == 1.0
    assert agreement.mask_iou is not None
    assert agreement.mask_iou > 0.9
