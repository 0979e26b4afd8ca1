"""COCO 2017 detection: the boxes of some classes in the pictures that show them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from training.config import Task
from training.data.prepare.instances import Box, Instances, parse_instances
from training.data.prepare.official import SPLITS, OfficialSet, Picture, Size
from training.data.prepare.releases import PrepareError
from training.data.prepare.sources import Files
from training.data.taxonomy import COCO

MIN_SIDE_PX: Final = 8.0  # the side of the finest cell; a smaller box is no reason to draw a picture
ALL_CLASSES: Final = "coco80"


class CocoSet(OfficialSet):
    """`mini_coco_det`: `data/<file>`, `labels.json` with one list of categories, the same ids in both splits."""

    task = Task.DETECTION
    folder = "mini_coco_det"

    def __init__(self, files: Files, wanted: str) -> None:
        """Read both annotation files.

        Args:
            files: the release.
            wanted: class names with commas between them, "coco80", or how many of the most frequent ones in train.

        Raises:
            PrepareError: an annotation file cannot be used, or a wanted class does not exist.
        """
        self.files = files
        self._instances = {split: _read_instances(files, split) for split in SPLITS}
        self.classes = choose_classes(wanted, self._instances["train"])

    def list_pictures(self, split: str) -> Sequence[Picture]:
        """All pictures; one can be drawn for a class if a box of it is no crowd and at least 8 px wide and high."""
        instances = self._instances[split]
        found = []
        for image_id, row in instances.images.items():
            name = row["file_name"]
            if PurePosixPath(name).name != name:
                raise PrepareError(f"instances_{split}2017.json: {name!r} is no file name")
            shown = {box.label for box in instances.boxes[image_id] if _is_clear(box)}
            classes = tuple(label for label in self.classes if label in shown)
            found.append(Picture(f"{split}2017/{name}", classes, Size(row["width"], row["height"])))
        return sorted(found, key=lambda picture: picture.id)

    def place(self, picture: Picture) -> str:
        """Pictures lie in `data`."""
        return f"data/{picture.name}"

    def make_annotations(self, split: str, sizes: Mapping[Picture, Size]) -> Mapping[str, bytes]:
        """`labels.json`: all boxes of the classes in these pictures, crowds and tiny ones too."""
        instances = self._instances[split]
        image_ids = {row["file_name"]: image_id for image_id, row in instances.images.items()}
        # The train file numbers the categories for both splits.
        ids = self._instances["train"].categories
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for picture, size in sorted(sizes.items(), key=lambda item: image_ids[item[0].name]):
            row = instances.images[image_ids[picture.name]]
            images.append({**row, "width": size.width, "height": size.height})
            across, down = size.width / row["width"], size.height / row["height"]
            boxes = (box for box in instances.boxes[row["id"]] if box.label in self.classes)
            annotations.extend(_scale(box, ids[box.label], across, down) for box in sorted(boxes))
        document = {
            "info": {"description": "drawn from COCO 2017 by unihead-data prepare", "split": f"{split}2017"},
            "licenses": instances.licenses,
            "categories": [{"id": ids[label], "name": label} for label in self.classes],
            "images": images,
            "annotations": annotations,
        }
        return {"labels.json": json.dumps(document).encode()}


def choose_classes(wanted: str, train: Instances) -> tuple[str, ...]:
    """Turn NAMES, "coco80" or N into class names in COCO's order; frequent is what many train pictures show clearly.

    Raises:
        PrepareError: a name is none of those in the train file, or there are not so many.
    """
    known = [label for label in COCO if label in train.categories]
    if wanted == ALL_CLASSES:
        return tuple(known)
    if wanted.isascii() and wanted.isdecimal():
        if not 1 <= int(wanted) <= len(known):
            raise PrepareError(f"--detection-classes is {wanted}; the train file has {len(known)} classes")
        shown = Counter(label for boxes in train.boxes.values() for label in {b.label for b in boxes if _is_clear(b)})
        chosen = set(sorted(known, key=lambda label: -shown[label])[: int(wanted)])
    else:
        chosen = {name.strip() for name in wanted.split(",")}
        if strange := sorted(chosen - set(known)):
            raise PrepareError(f"--detection-classes has {strange[0]!r}; wanted {ALL_CLASSES}, a number, or of {known}")
    return tuple(label for label in known if label in chosen)


def _read_instances(files: Files, split: str) -> Instances:
    name = f"annotations/instances_{split}2017.json"
    return parse_instances(files.read_index(name), name)


def _is_clear(box: Box) -> bool:
    return not box.is_crowd and min(box.bbox[2:]) >= MIN_SIDE_PX


def _scale(box: Box, category_id: int, across: float, down: float) -> dict[str, Any]:
    x, y, width, height = box.bbox
    bbox, area = [x, y, width, height], box.area
    if (across, down) != (1, 1):
        bbox = [round(side, 2) for side in (x * across, y * down, width * across, height * down)]
        area = round(area * across * down, 2)
    return {
        "id": box.id,
        "image_id": box.image_id,
        "category_id": category_id,
        "bbox": bbox,
        "area": area,
        "iscrowd": int(box.is_crowd),
    }
