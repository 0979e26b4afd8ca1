from pathlib import Path

import pytest

from training.data.doctor.boxes import AnnotatedBox, report_boxes
from training.data.doctor.codes import Ledger
from training.data.layouts.coco_rows import parse_xywh


def box(*xywh: float, is_crowd: bool = False) -> AnnotatedBox:
    x, y, width, height = xywh
    return AnnotatedBox("annotation 1", "cat", (x, y, width, height), 100, 80, is_crowd)


def codes(*boxes: AnnotatedBox) -> dict[str, int]:
    ledger = Ledger(Path("data"))
    report_boxes(Path("data/labels.json"), boxes, ledger)
    return {finding.code: len(finding.cases) for finding in ledger.findings()}


@pytest.mark.parametrize(
    ("xywh", "code"),
    [
        ((0, 0, 100, 80), None),
        ((0, 0, 101, 81), None),
        ((-1, -1, 50, 50), None),
        ((0, 0, 102, 80), "box-outside-picture"),
        ((-1.5, 0, 50, 50), "box-outside-picture"),
        ((10, 79, 5, 5), "box-outside-picture"),
        ((10, 10, 0, 5), "box-without-area"),
        ((10, 10, 5, -5), "box-without-area"),
        ((10, 10, 2, 2), None),
        ((10, 10, 1.99, 9), "tiny-box"),
        ((0, 0, 1, 1), "normalised-box"),
        ((0, 0, 1.5, 1), "tiny-box"),
        ((-3, 0, 1, 1), "box-outside-picture"),
    ],
)
def test_one_box_at_the_edge_of_each_rule(xywh: tuple[float, float, float, float], code: str | None) -> None:
    assert codes(box(*xywh)) == ({} if code is None else {code: 1})


def test_a_crowd_is_told_besides_its_other_faults() -> None:
    assert codes(box(0, 0, 200, 80, is_crowd=True)) == {"crowd-box": 1, "box-outside-picture": 1}


def test_corners_in_place_of_sizes_are_seen_over_the_whole_file() -> None:
    corners = [box(60, 40, 90, 70), box(50, 30, 80, 60), box(70, 10, 95, 20), box(1, 1, 10, 10)]
    assert codes(*corners) == {"xywh-taken-for-xyxy": 3}


def test_sizes_taken_for_corners_are_seen_over_the_whole_file() -> None:
    # 60, 40, 30, 30 and so on, with x and y subtracted from width and height
    subtracted = [box(60, 40, -30, -10), box(50, 30, -20, 0), box(70, 10, -45, 0), box(1, 1, 9, 9)]
    assert codes(*subtracted) == {"xywh-taken-for-xyxy": 3}


def test_a_few_boxes_that_leave_their_pictures_do_not_condemn_a_file() -> None:
    sound = [box(10, 10, 20, 20)] * 20
    assert codes(*sound, *[box(60, 40, 90, 70)] * 4) == {"box-outside-picture": 4}


def test_boxes_that_fit_in_no_convention_are_simply_outside() -> None:
    assert codes(*[box(60, 40, 300, 300)] * 5) == {"box-outside-picture": 5}


@pytest.mark.parametrize("value", [None, "1,2,3,4", [1, 2, 3], [1, 2, 3, None], [1, 2, 3, float("inf")]])
def test_a_bbox_is_four_finite_numbers(value: object) -> None:
    assert parse_xywh(value) is None
    assert parse_xywh([1, 2, 3, 4.5]) == (1.0, 2.0, 3.0, 4.5)
