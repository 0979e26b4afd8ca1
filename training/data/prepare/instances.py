"""A COCO annotation file of any size, with everything left out that boxes do not need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from training.data.prepare.releases import PrepareError
from training.data.taxonomy import COCO

Row: TypeAlias = Mapping[str, Any]


class Box(NamedTuple):
    """One annotated object or crowd; a tuple, because a full annotation file has 860,001 of them."""

    id: int
    image_id: int
    label: str
    bbox: tuple[float, float, float, float]  # x, y, width, height; in pixels
    area: float  # of the object's outline; in square pixels
    is_crowd: bool


class _RawBox(NamedTuple):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    is_crowd: bool


@dataclass(frozen=True, slots=True)
class Instances:
    """What one annotation file says.

    Attributes:
        images: rows by picture id.
        boxes: by picture id; a picture without objects has none.
        categories: ids by class name.
        licenses: rows that `license` in the images refers to.
    """

    images: Mapping[int, Row]
    boxes: Mapping[int, Sequence[Box]]
    categories: Mapping[str, int]
    licenses: Sequence[Row]


def parse_instances(body: bytes, name: str) -> Instances:
    """Read `instances_*.json` (cocodataset.org/#format-data, 1. Object Detection).

    Outlines go while the file is read: with them, the 448 MB of the train split become several GB of numbers.

    Args:
        body: the file.
        name: what to call it in errors.

    Raises:
        PrepareError: no JSON, a part or field is missing, an id refers to nothing, or a class is none of COCO's 80.
    """
    try:
        document = json.loads(body, object_hook=_slim)
        images = {row["id"]: _check_image(row) for row in document["images"]}
        names = {row["id"]: row["name"] for row in document["categories"]}
        if strange := [label for label in names.values() if label not in COCO]:
            raise PrepareError(f"{name}: has the category {strange[0]!r}; wanted COCO's 80 class names")
        boxes: dict[int, list[Box]] = {image_id: [] for image_id in images}
        for raw in document["annotations"]:
            boxes[raw.image_id].append(Box(raw.id, raw.image_id, names[raw.category_id], *raw[3:]))
        categories = {label: category_id for category_id, label in names.items()}
        return Instances(images, boxes, categories, document.get("licenses", []))
    except PrepareError:
        raise
    except KeyError as error:
        raise PrepareError(f"{name}: a field or an id that is referred to is missing: {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise PrepareError(f"{name}: {error}; wanted a COCO file with images, annotations and categories") from error


def _check_image(row: Row) -> Row:
    return {**row, "file_name": str(row["file_name"]), "width": int(row["width"]), "height": int(row["height"])}


def _slim(row: dict[str, Any]) -> object:
    if "bbox" not in row:
        return row
    x, y, width, height = map(float, row["bbox"])
    area = row.get("area", width * height)
    return _RawBox(
        row["id"], row["image_id"], row["category_id"], (x, y, width, height), area, bool(row.get("iscrowd", 0))
    )
