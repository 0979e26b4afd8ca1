"""What the mini set's COCO file says about each of its pictures, with the classes joined by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from training.data.layouts.readings import MIN_SIDE_PX

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """One annotated object, or one crowd of them."""

    box: tuple[float, float, float, float]  # xyxy, pixels of the picture, clipped to it
    label: int  # position in the class names
    is_crowd: bool


@dataclass(frozen=True, slots=True)
class CocoFile:
    """The boxes of every picture by its file name, none for a picture without objects.

    Attributes:
        pictures: boxes by file name, in the file's order.
        faulty_boxes: how many boxes were left out because they have no area or lie outside their picture.
    """

    pictures: Mapping[str, Sequence[LabelledBox]]
    faulty_boxes: int


def parse_coco(document: Mapping[str, Sequence[Row]], names: Sequence[str]) -> CocoFile:
    """Read the boxes of a COCO detection file (cocodataset.org/#format-data, 1. Object Detection).

    Ids only tie the rows of one file together: exports number categories anew for each split, so a label is the
    position of the category's name. Boxes under 2 px in width or height, once clipped, are left out.

    Args:
        document: the decoded JSON; boxes are x, y, width, height in pixels.
        names: all class names that may occur.

    Raises:
        ValueError: a part is missing, an id is used twice or refers to nothing, a class name is unknown, or a file
            name is no text.
    """
    for part in ("images", "annotations", "categories"):
        if part not in document:
            raise ValueError(f"has no {part!r}; wanted a COCO file with images, annotations and categories")
    images = _by_id(document["images"], "images")
    categories = _by_id(document["categories"], "categories")
    label_of_name = {name: label for label, name in enumerate(names)}
    for category_id, category in categories.items():
        if not isinstance(category["name"], str) or category["name"] not in label_of_name:
            raise ValueError(f"category {category_id} is named {category['name']!r}; wanted one of {', '.join(names)}")

    for image_id, image in images.items():
        if not isinstance(image["file_name"], str):
            raise ValueError(f"image {image_id} has the file_name {image['file_name']!r}; wanted text")  # noqa: TRY004 - of data
    pictures: dict[str, list[LabelledBox]] = {image["file_name"]: [] for image in images.values()}
    faulty_boxes = 0
    for annotation in document["annotations"]:
        image = _referred(images, annotation, "image_id")
        category = _referred(categories, annotation, "category_id")
        box = _clip_to_xyxy(annotation["bbox"], image["width"], image["height"])
        if box is None:
            faulty_boxes += 1
        elif min(box[2] - box[0], box[3] - box[1]) >= MIN_SIDE_PX:
            label = label_of_name[category["name"]]
            pictures[image["file_name"]].append(LabelledBox(box, label, bool(annotation.get("iscrowd", 0))))
    return CocoFile(pictures, faulty_boxes)


def _by_id(rows: Sequence[Row], part: str) -> dict[int, Row]:
    found = {row["id"]: row for row in rows}
    if len(found) != len(rows):
        raise ValueError(f"two of its {part} have the same id; wanted an id of their own for each")
    return found


def _referred(rows: Mapping[int, Row], annotation: Row, key: str) -> Row:
    if annotation[key] not in rows:
        raise ValueError(f"annotation {annotation.get('id')} has the {key} {annotation[key]!r}, which the file lacks")
    return rows[annotation[key]]


def _clip_to_xyxy(xywh: Sequence[float], width: int, height: int) -> tuple[float, float, float, float] | None:
    """Turn x, y, width, height into xyxy clipped to the picture; None if nothing of the box is inside it."""
    x, y, box_width, box_height = xywh
    has_area = box_width > 0 and box_height > 0 and math.isfinite(x + y + box_width + box_height)
    if not has_area or x >= width or y >= height or x + box_width <= 0 or y + box_height <= 0:
        return None
    return max(x, 0.0), max(y, 0.0), min(x + box_width, float(width)), min(y + box_height, float(height))
