from typing import Any

import pytest

from training.data.layouts.mini_coco import CocoFile, LabelledBox, parse_coco

NAMES = ("person", "car")


def document(*boxes: list[float], **changes: list[dict[str, Any]]) -> dict[str, Any]:
    """One picture of 100 x 50 px with these boxes xywh, all of class car, whose id is 9."""
    rows: dict[str, Any] = {
        "images": [{"id": 5, "file_name": "a.jpg", "width": 100, "height": 50}],
        "categories": [{"id": 9, "name": "car"}],
        "annotations": [{"id": i, "image_id": 5, "category_id": 9, "bbox": box} for i, box in enumerate(boxes)],
    }
    return rows | changes


def test_the_label_is_the_position_of_the_name_and_the_box_becomes_xyxy() -> None:
    found = parse_coco(document([10, 20, 30, 25]), NAMES)
    assert found == CocoFile({"a.jpg": [LabelledBox((10, 20, 40, 45), 1, is_crowd=False)]}, faulty_boxes=0)


def test_a_crowd_is_marked() -> None:
    annotation = {"id": 1, "image_id": 5, "category_id": 9, "bbox": [0, 0, 10, 10], "iscrowd": 1}
    (box,) = parse_coco(document(annotations=[annotation]), NAMES).pictures["a.jpg"]
    assert box.is_crowd


def test_a_picture_without_objects_stays() -> None:
    assert parse_coco(document(), NAMES).pictures == {"a.jpg": []}


def test_boxes_are_clipped_to_the_picture() -> None:
    (box,) = parse_coco(document([-5, 40, 200, 20]), NAMES).pictures["a.jpg"]
    assert box.box == (0, 40, 100, 50)


@pytest.mark.parametrize("box", [[10, 10, 1.9, 20], [10, 10, 20, 1.9], [99, 10, 20, 20]])
def test_boxes_under_two_pixels_are_left_out_without_a_word(box: list[float]) -> None:
    assert parse_coco(document(box), NAMES) == CocoFile({"a.jpg": []}, faulty_boxes=0)


def test_a_box_of_two_pixels_stays() -> None:
    assert len(parse_coco(document([10, 10, 2, 2]), NAMES).pictures["a.jpg"]) == 1


@pytest.mark.parametrize(
    "box",
    [
        [10, 10, -5, 20],
        [10, 10, 0, 20],
        [10, 10, 20, 0],
        [100, 10, 20, 20],
        [10, 50, 20, 20],
        [-30, 10, 20, 20],
        [10, -30, 20, 20],
        [float("nan"), 10, 20, 20],
        [10, 10, float("inf"), 20],
    ],
)
def test_boxes_without_area_or_outside_the_picture_are_counted(box: list[float]) -> None:
    assert parse_coco(document(box, [1, 1, 9, 9]), NAMES).faulty_boxes == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"categories": [{"id": 9, "name": "unicorn"}]}, "category 9 is named 'unicorn'; wanted one of person, car"),
        ({"categories": [{"id": 9, "name": {"name": "car"}}]}, "category 9 is named {'name': 'car'}"),
        ({"categories": [{"id": 1, "name": "car"}]}, "annotation 0 has the category_id 9, which the file lacks"),
        ({"images": []}, "annotation 0 has the image_id 5, which the file lacks"),
        ({"images": [{"id": 5, "file_name": n} for n in "ab"]}, "two of its images have the same id"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, list[dict[str, Any]]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_coco(document([1, 1, 9, 9], **changes), NAMES)


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_a_missing_part_is_named(part: str) -> None:
    rows = document()
    del rows[part]
    with pytest.raises(ValueError, match=f"has no '{part}'"):
        parse_coco(rows, NAMES)


def test_a_file_name_that_is_no_text_is_an_error() -> None:
    images = [{"id": 5, "file_name": None, "width": 100, "height": 50}]
    with pytest.raises(ValueError, match="image 5 has the file_name None"):
        parse_coco(document(images=images), NAMES)
