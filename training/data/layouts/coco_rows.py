"""The rows of a COCO file, as the exports of many programs have them: checked one by one, ids of any kind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from training.data.layouts.faults import Faults
from training.data.layouts.outlines import Shape, bounds, read_shape

Id: TypeAlias = int | str
Sides: TypeAlias = tuple[float, float, float, float]

_PARTS: Final = ("images", "annotations", "categories")
_WANTED: Final = "wanted a COCO JSON: an object with the lists images, annotations and categories"


@dataclass(frozen=True, slots=True)
class ImageRow:
    """A picture as its file names it.

    Attributes:
        file_name: as the file has it.
        size: width and height in pixels; None where the file does not say.
        shown: names of classes that it shows, from a list `image_labels`; None where it has none.
    """

    file_name: str
    size: tuple[int, int] | None
    shown: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AnnotationRow:
    """One object of a picture that the file lists, of a category that it lists.

    Attributes:
        entry: for sentences: "annotation 7".
        image, category: ids.
        xywh: x, y, width, height in pixels, finite, not clipped.
        crowd: it stands for many objects.
        score: 0..1 where it has one.
        shape: its outline where it has one.
    """

    entry: str
    image: Id
    category: Id
    xywh: Sides
    crowd: bool
    score: float | None
    shape: Shape | None


@dataclass(frozen=True, slots=True)
class CocoRows:
    """The sound rows of one COCO file.

    Attributes:
        categories: class names by id, without those that stand only for others (Roboflow's number 0).
        images: by id.
        annotations: in the file's order.
    """

    categories: Mapping[Id, str]
    images: Mapping[Id, ImageRow]
    annotations: Sequence[AnnotationRow]


def load_document(path: Path) -> dict[str, list[Any]]:
    """Decode a COCO file and check that its three parts are lists.

    Raises:
        ValueError: the file cannot be read or is no COCO JSON; the sentence says what came and what to do.
    """
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{error.strerror}; wanted the COCO JSON of this split") from error
    if not body.strip():
        raise ValueError(f"the file is empty; {_WANTED}: export it again")
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and body.lstrip()[:1] == b"{":
            raise ValueError(f"it has one JSON object a line (JSON Lines); {_WANTED}") from error
        raise ValueError(f"{error}; {_WANTED}") from error
    except ValueError as error:
        raise ValueError(f"{error}; {_WANTED}") from error
    if not isinstance(document, dict):
        inner = document[0] if isinstance(document, list) and len(document) == 1 else None
        hint = ": take the object out of its list" if isinstance(inner, dict) and "images" in inner else ""
        kind = "a list" if isinstance(document, list) else f"a {type(document).__name__}"
        raise ValueError(f"it holds {kind}; {_WANTED}{hint}")  # noqa: TRY004 - of data
    if lacking := [part for part in _PARTS if not isinstance(document.get(part), list)]:
        raise ValueError(f"it has no list {' and no list '.join(lacking)}; {_WANTED}")
    return {part: document[part] for part in _PARTS}


def read_rows(path: Path, document: Mapping[str, Sequence[object]], faults: Faults) -> CocoRows:
    """Check every row of a COCO file; what is told of a faulty one `faults` decides."""
    categories = _read_categories(path, document["categories"], faults)
    images = _read_images(path, document["images"], faults)
    known = {part: {_id(row) for row in document[part]} for part in ("images", "categories")}
    annotations = []
    counts: Counter[Id] = Counter()
    for position, row in enumerate(document["annotations"]):
        fields = row if isinstance(row, dict) else {}
        own = read_id(fields.get("id"))
        if own is not None:
            counts[own] += 1
        entry = f"annotation {fields['id']}" if "id" in fields else f"annotation number {position}"
        found = _read_annotation(path, fields, entry, known, faults)
        if found is not None and found.image in images and found.category in categories:
            annotations.append(found)
    for own, count in counts.items():
        if count > 1:
            sentence = f"{count} annotations have this id; training goes by none of them, other programs keep one"
            faults.note("repeated-annotation-id", path, sentence, entry=f"annotation {own}")
    used = {row.category for row in annotations}
    parents = {fields.get("supercategory") for fields in document["categories"] if isinstance(fields, dict)}
    kept = {number: name for number, name in categories.items() if number in used or name not in parents}
    return CocoRows(kept, images, annotations)


def read_id(value: object) -> Id | None:
    """An id as it is compared: 3, 3.0 and "3" are one; None where it is none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return value if value >= 0 else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and value >= 0 else None
    if isinstance(value, str) and value.strip():
        return int(value) if value.strip().isascii() and value.strip().isdigit() else value.strip()
    return None


def _id(row: object) -> Id | None:
    return read_id(row.get("id")) if isinstance(row, dict) else None


def _read_categories(path: Path, rows: Sequence[object], faults: Faults) -> dict[Id, str]:
    categories: dict[Id, str] = {}
    for row in rows:
        number, name = _id(row), row.get("name") if isinstance(row, dict) else None
        if number is None or not isinstance(name, str) or not name.strip():
            faults.refuse("corrupt-category", path, f"{shorten(row)}; wanted an id >= 0 and a name in letters")
        elif number in categories:
            faults.refuse("duplicate-id", path, f"two categories have the id {number}; wanted an id for each")
        else:
            categories[number] = name.strip()
    for name, count in Counter(categories.values()).items():
        if count > 1:
            faults.note("duplicate-class-name", path, f"{name!r} names {count} categories; wanted one")
    return categories


def _read_images(path: Path, rows: Sequence[object], faults: Faults) -> dict[Id, ImageRow]:
    images: dict[Id, ImageRow] = {}
    for row in rows:
        fields = row if isinstance(row, dict) else {}
        number, file_name, size = _id(row), fields.get("file_name"), _read_sides(fields)
        if number is None or not isinstance(file_name, str) or not file_name.strip() or size == (0, 0):
            faults.refuse("corrupt-image-entry", path, f"{shorten(row)}; wanted id, file_name, width and height")
        elif number in images:
            faults.refuse("duplicate-id", path, f"two images have the id {number}; wanted an id for each")
        else:
            listed = fields.get("image_labels")
            shown = tuple(str(name).strip() for name in listed) if isinstance(listed, list) else None
            images[number] = ImageRow(file_name, size, shown)
    for file_name, count in Counter(row.file_name for row in images.values()).items():
        if count > 1:
            faults.note("picture-listed-twice", path, f"{count} images are named {file_name}; wanted one")
    return images


def _read_sides(fields: Mapping[str, object]) -> tuple[int, int] | None:
    """Width and height; None where the file leaves both out, (0, 0) where they are no sizes."""
    values = (fields.get("width"), fields.get("height"))
    if values == (None, None) and not {"width", "height"} & fields.keys():
        return None
    sides = [number for value in values if (number := read_id(value)) is not None]
    width, height = (sides[0], sides[1]) if len(sides) == len(values) else (0, 0)
    return (width, height) if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0 else (0, 0)


def _read_annotation(
    path: Path, fields: Mapping[str, Any], entry: str, known: Mapping[str, set[Id | None]], faults: Faults
) -> AnnotationRow | None:
    image, category = read_id(fields.get("image_id")), read_id(fields.get("category_id"))
    try:
        shape = read_shape(fields.get("segmentation"))
    except (TypeError, ValueError):
        shape = None
    xywh = parse_xywh(fields.get("bbox"))
    if xywh is None and (xywh := _around(shape)) is not None:
        sentence = f"bbox is {shorten(fields.get('bbox'))}; the box around its outline is taken"
        faults.mend("box-from-outline", path, sentence, entry=entry)
    if image is None or category is None or xywh is None:
        wanted = "wanted image_id, category_id and a bbox of four numbers: x, y, width, height"
        faults.refuse("corrupt-annotation", path, f"{shorten(fields)}; {wanted}", entry=entry)
        return None
    is_known = True
    for key, number, part in (("image_id", image, "images"), ("category_id", category, "categories")):
        if number not in known[part]:
            code = f"unknown-{key.replace('_', '-')}"
            faults.refuse(code, path, f"{key} {number}; wanted one of {_span(known[part])}", entry=entry)
            is_known = False
    score = fields.get("score")
    is_score = isinstance(score, (int, float)) and not isinstance(score, bool) and 0 <= score <= 1
    crowd = any(str(fields.get(key, 0)) in {"1", "1.0", "True"} for key in ("iscrowd", "ignore"))
    return AnnotationRow(entry, image, category, xywh, crowd, score if is_score else None, shape) if is_known else None


def parse_xywh(value: object) -> Sides | None:
    """Read a `bbox` field; None unless it is four finite numbers, or text of such."""
    if not isinstance(value, list) or len(value) != 4:  # noqa: PLR2004 - four sides
        return None
    try:
        x, y, width, height = (float(side) for side in value if not isinstance(side, bool))
    except (TypeError, ValueError):
        return None
    return (x, y, width, height) if all(np.isfinite([x, y, width, height])) else None


def _around(shape: Shape | None) -> Sides | None:
    corners = bounds(shape) if shape is not None else None
    if corners is None:
        return None
    x1, y1, x2, y2 = corners
    return x1, y1, x2 - x1, y2 - y1


def _span(ids: set[Id | None]) -> str:
    numbers = sorted(number for number in ids if isinstance(number, int))
    if numbers and len(numbers) == len(ids - {None}):
        return f"{len(numbers)} ids from {numbers[0]} to {numbers[-1]}"
    texts = sorted(str(number) for number in ids if number is not None)
    return f"{len(texts)} ids such as {texts[0]}" if texts else "none, for the file lists none"


def shorten(row: object) -> str:
    """A row as JSON in a line's width."""
    text = json.dumps(row, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line's width
