"""What is wrong with a COCO detection file, row by row: all of it, where the training reader stops at the first."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeGuard

from training.data.classes import COCO_CLASSES
from training.data.doctor.boxes import AnnotatedBox, parse_xywh, report_boxes
from training.data.doctor.codes import Ledger
from training.data.doctor.findings import PictureBox

Row: TypeAlias = Mapping[str, object]
Document: TypeAlias = Mapping[str, Sequence[object]]

_PARTS = ("images", "annotations", "categories")


@dataclass(frozen=True, slots=True)
class ListedPicture:
    """A picture as its annotation file has it.

    Attributes:
        file_name: below the folder of the split's pictures.
        width, height: as the file says; in pixels.
        boxes: its well-formed boxes, crowds too.
    """

    file_name: str
    width: int
    height: int
    boxes: tuple[PictureBox, ...]


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """The sound rows of one COCO file.

    Attributes:
        category_ids: id by class name, the first of each name.
        pictures: in the file's order.
    """

    category_ids: Mapping[str, int]
    pictures: Sequence[ListedPicture]


def load_document(path: Path) -> Document:
    """Decode a COCO file and check that its three parts are lists.

    Raises:
        ValueError: the file cannot be read or is no COCO JSON; the sentence says what came.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{error.strerror}; wanted the COCO JSON of this split") from error
    except ValueError as error:
        raise ValueError(f"{error}; wanted a COCO JSON") from error
    if not isinstance(document, dict) or not all(isinstance(document.get(part), list) for part in _PARTS):
        raise ValueError(f"not all of {', '.join(_PARTS)} are lists in it; wanted a COCO JSON")
    return {part: document[part] for part in _PARTS}


def examine_annotations(path: Path, ledger: Ledger) -> AnnotationFile | None:
    """Read the sound rows of a COCO file and write a case for each other row, and for each faulty box.

    Returns:
        The sound rows; None if the file is no COCO JSON at all.
    """
    try:
        document = load_document(path)
    except ValueError as error:
        ledger.add("unreadable-annotation-file", path, str(error))
        return None
    categories = _sound_categories(path, document["categories"], ledger)
    images = _sound_images(path, document["images"], ledger)
    boxes: dict[int, list[AnnotatedBox]] = defaultdict(list)
    known = {part: _ids(document[part]) for part in ("images", "categories")}
    for position, row in enumerate(document["annotations"]):
        fields = row if isinstance(row, dict) else {}
        annotation = fields.get("id", f"number {position}")
        image_id, category_id = fields.get("image_id"), fields.get("category_id")
        xywh = parse_xywh(fields.get("bbox"))
        if not (_is_whole(image_id) and _is_whole(category_id)) or xywh is None:
            wanted = "wanted image_id, category_id and a bbox of four numbers"
            ledger.add("corrupt-annotation", path, f"{_shorten(row)}; {wanted}", annotation=annotation)
            continue
        if image_id not in known["images"]:
            sentence = f"image_id {image_id}; wanted one of {_span(known['images'])}"
            ledger.add("unknown-image-id", path, sentence, annotation=annotation)
        if category_id not in known["categories"]:
            sentence = f"category_id {category_id}; wanted one of {_span(known['categories'])}"
            ledger.add("unknown-category-id", path, sentence, annotation=annotation)
        if image_id in images and category_id in categories:
            _, width, height = images[image_id]
            is_crowd = bool(fields.get("iscrowd", 0))
            boxes[image_id].append(AnnotatedBox(annotation, categories[category_id], xywh, width, height, is_crowd))
    report_boxes(path, [box for rows in boxes.values() for box in rows], ledger)
    pictures = [
        ListedPicture(file_name, width, height, tuple(box.as_picture_box() for box in boxes[image_id]))
        for image_id, (file_name, width, height) in images.items()
    ]
    # Reversed, so that of two categories with one name the first one's id stays.
    return AnnotationFile({name: category_id for category_id, name in reversed(categories.items())}, pictures)


def _sound_categories(path: Path, rows: Sequence[object], ledger: Ledger) -> dict[int, str]:
    categories: dict[int, str] = {}
    for row in rows:
        fields = row if isinstance(row, dict) else {}
        category_id, name = fields.get("id"), fields.get("name")
        if not _is_whole(category_id) or not isinstance(name, str) or not name.strip():
            ledger.add("corrupt-category", path, f"{_shorten(row)}; wanted an id >= 0 and a name in letters")
        elif category_id in categories:
            ledger.add("duplicate-id", path, f"two categories have the id {category_id}; wanted an id for each")
        else:
            categories[category_id] = name
    for name, count in Counter(categories.values()).items():
        if name not in COCO_CLASSES:
            ledger.add(
                "unknown-class-name", path, f"{name!r}; wanted a class of COCO 2017, such as {COCO_CLASSES[0]!r}"
            )
        if count > 1:
            ledger.add("duplicate-class-name", path, f"{name!r} names {count} categories; wanted one")
    return categories


def _sound_images(path: Path, rows: Sequence[object], ledger: Ledger) -> dict[int, tuple[str, int, int]]:
    """File name, width and height by id."""
    images: dict[int, tuple[str, int, int]] = {}
    for row in rows:
        fields = row if isinstance(row, dict) else {}
        image_id, file_name = fields.get("id"), fields.get("file_name")
        width, height = fields.get("width"), fields.get("height")
        if not (_is_whole(image_id) and isinstance(file_name, str) and _is_whole(width, 1) and _is_whole(height, 1)):
            ledger.add("corrupt-image-entry", path, f"{_shorten(row)}; wanted id, file_name, width and height")
        elif image_id in images:
            ledger.add("duplicate-id", path, f"two images have the id {image_id}; wanted an id for each")
        else:
            images[image_id] = (file_name, width, height)
    for file_name, count in Counter(file_name for file_name, _, _ in images.values()).items():
        if count > 1:
            ledger.add("picture-listed-twice", path, f"{count} images are named {file_name}; wanted one")
    return images


def _ids(rows: Sequence[object]) -> set[int]:
    """All ids that a part's rows have, those of corrupt rows too: a reference to them is no fault of its own."""
    return {row["id"] for row in rows if isinstance(row, dict) and _is_whole(row.get("id"))}


def _is_whole(value: object, least: int = 0) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _span(ids: set[int]) -> str:
    return f"{len(ids)} ids from {min(ids)} to {max(ids)}" if ids else "none, for the file lists none"


def _shorten(row: object) -> str:
    text = json.dumps(row, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line's width
