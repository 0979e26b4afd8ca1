"""Results as COCO's tools read them: a list of results, or a whole data set with categories and pictures.

Boxes have the category `label_id` + 1. Masks, one a class and picture, have the number of classes of boxes + their
`label_id`, and names that end in " (mask)": as boxes of their classes they would be wrong ones. The background of masks
is left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

from service.answers.masks import measure_counts
from service.commands.results import Record, ResultFileError, replace_file
from service.engine.contract import ModelTask


@dataclass(frozen=True, slots=True)
class CocoIds:
    """Numbers of pictures and categories.

    Attributes:
        pictures: by name; empty: pictures are numbered from 1 in the order of the results.
        categories: of boxes by `label_id`; those without have no place in the results.
        masks: is added to the `label_id` of a mask.
    """

    pictures: Mapping[str, int]
    categories: Mapping[int, int]
    masks: int

    @classmethod
    def of(cls, classes: Mapping[ModelTask, tuple[str, ...]]) -> CocoIds:
        """Number the classes of a model."""
        boxes = classes.get("detect", ())
        return cls({}, {label_id: label_id + 1 for label_id in range(len(boxes))}, len(boxes))

    @classmethod
    def read(cls, path: Path, names: Iterable[str], classes: Mapping[ModelTask, tuple[str, ...]]) -> CocoIds:
        """Take the numbers of an annotation file: pictures by file name, categories by name.

        Args:
            path: of the annotation file.
            names: of the pictures that need a number.
            classes: of the model; those that the file does not have get none. Masks come behind all of the file's.

        Raises:
            ResultFileError: it is no such file, or does not have a picture.
        """
        try:
            said = json.loads(path.read_bytes())
            images = {str(one["file_name"]): int(one["id"]) for one in said["images"]}
            categories = {str(one["name"]): int(one["id"]) for one in said["categories"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ResultFileError(f"{path} is no annotation file of COCO: {error!r}") from error
        found = {name: _find_id(PurePath(name), images) for name in names}
        missing = [name for name, number in found.items() if number is None]
        if missing:
            raise ResultFileError(f"{path} does not have the picture {missing[0]}, and {len(missing) - 1} others")
        boxes = dict(enumerate(classes.get("detect", ())))
        return cls(
            {name: number for name, number in found.items() if number is not None},
            {label_id: categories[name] for label_id, name in boxes.items() if name in categories},
            max(categories.values(), default=0),
        )


def _find_id(name: PurePath, images: Mapping[str, int]) -> int | None:
    """By as much of the path as the file has; or by the last part alone, where one picture is called so."""
    for start in range(len(name.parts)):
        if (number := images.get("/".join(name.parts[start:]))) is not None:
            return number
    same = [number for other, number in images.items() if PurePath(other).name == name.name]
    return same[0] if len(same) == 1 else None


def write_results(path: Path, records: Iterable[Record], ids: CocoIds) -> Counter[str]:
    """Write results as `COCO.loadRes` of pycocotools reads them; the file is replaced when it is complete.

    Returns:
        How many boxes were left out, because the annotation file does not have their class.
    """
    left_out: Counter[str] = Counter()
    with replace_file(path) as unfinished, unfinished.open("w", encoding="ascii") as file:
        _write_list(file, (one for _, one in _make_annotations(records, ids, left_out)))
    return left_out


def write_dataset(
    path: Path, read: Callable[[], Iterable[Record]], ids: CocoIds, classes: Mapping[ModelTask, tuple[str, ...]]
) -> None:
    """Write a whole annotation file; it is replaced when it is complete.

    Args:
        path: of the file.
        read: gives all records, each time that it is called.
        ids: of the model's own numbers.
        classes: of the model.
    """
    categories = [
        {"id": ids.categories[label_id], "name": name, "supercategory": "box"}
        for label_id, name in enumerate(classes.get("detect", ()))
    ]
    categories += [
        {"id": ids.masks + label_id, "name": f"{name} (mask)", "supercategory": "mask"}
        for label_id, name in enumerate(classes.get("segment", ()))
        if label_id
    ]
    with replace_file(path) as unfinished, unfinished.open("w", encoding="ascii") as file:
        file.write(f'{{"info":{{"description":"written by unihead-predict"}},\n"categories":{json.dumps(categories)}')
        file.write(',\n"images":')
        _write_list(file, _make_images(read(), ids))
        file.write(',\n"annotations":')
        annotations = enumerate(_make_annotations(read(), ids, Counter()), 1)
        _write_list(file, ({"id": number, "iscrowd": 0, **size, **one} for number, (size, one) in annotations))
        file.write("}\n")


def _write_list(file: IO[str], entries: Iterable[dict[str, Any]]) -> None:
    file.write("[")
    for number, entry in enumerate(entries):
        file.write(",\n" if number else "\n")
        json.dump(entry, file, separators=(",", ":"))
    file.write("]")


def _number(records: Iterable[Record], ids: CocoIds) -> Iterator[tuple[int, Record]]:
    """Records that have an answer, with the numbers of their pictures."""
    for number, record in enumerate(records, 1):
        if "error" not in record:
            yield ids.pictures[record["file"]] if ids.pictures else number, record


def _make_images(records: Iterable[Record], ids: CocoIds) -> Iterator[dict[str, Any]]:
    for number, record in _number(records, ids):
        yield {"id": number, "file_name": record["file"], **record["image"]}


def _make_annotations(
    records: Iterable[Record], ids: CocoIds, left_out: Counter[str]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What only a data set says of each thing found, and what results say, too."""
    for image_id, record in _number(records, ids):
        for one in record.get("detections", ()):
            if one["label_id"] not in ids.categories:
                left_out[one["label"]] += 1
                continue
            x1, y1, x2, y2 = one["box"]
            width, height = round(x2 - x1, 2), round(y2 - y1, 2)
            yield (
                {"area": round(width * height, 2), "segmentation": []},
                {
                    "image_id": image_id,
                    "category_id": ids.categories[one["label_id"]],
                    "bbox": [x1, y1, width, height],
                    "score": one["score"],
                },
            )
        mask = record.get("mask", {"segments": ()})
        for one in mask["segments"]:
            if not one["label_id"]:
                continue
            area, box = measure_counts(one["counts"], mask["size"][0])
            yield (
                {"area": area},
                {
                    "image_id": image_id,
                    "category_id": ids.masks + one["label_id"],
                    "bbox": list(box),
                    "segmentation": {"size": mask["size"], "counts": one["counts"]},
                    "score": 1.0,
                },
            )
