"""The labels as a source that training reads: pictures, COCO JSON, masks, class folders, and a data file for them."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from service.pictures.imaging import FloatArray, UInt8Array
from training.data.labelling.answers import BoxAnswer
from training.data.labelling.faults import LabellingError
from training.data.labelling.rules import Rules
from training.data.layouts.readings import Layout
from training.data.sets.data_file import BACKGROUND, SHIPPED, Classes, DataFile, Source, format_data_file
from training.data.sets.guess import HELD_OUT
from training.files import write_whole
from training.options.base import Task

# Kept between runs; a folder that has it was written here.
ANSWERS: Final = ".answers"
_DATA_FILE: Final = "data.toml"
_PICTURES, _BOXES, _MASKS, _CLASSES, _PROBABILITIES = "images", "labels.json", "masks", "train", "probabilities.csv"
_RECORD: Final = "labelling.json"
_PARTS: Final = (_PICTURES, _BOXES, _MASKS, _CLASSES, _PROBABILITIES, _RECORD)


@dataclass(frozen=True, slots=True, eq=False)
class BoxRow:
    """The boxes of one picture; `given` are the scores of the teachers, where image labels have changed them too."""

    picture: str
    size: tuple[int, int]
    boxes: BoxAnswer
    given: FloatArray


def check_out(out: Path, pictures: Path) -> None:
    """Refuse a folder that labels cannot be written into.

    Raises:
        LabellingError: it holds what was not written here, or it and the folder of pictures lie in each other.
    """
    one, other = out.resolve(), pictures.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise LabellingError(f"{out}: --out and --pictures lie in each other; wanted two folders")
    if out.exists() and not (out.is_dir() and ((out / ANSWERS).is_dir() or not any(out.iterdir()))):
        raise LabellingError(f"{out}: exists already, and no earlier run wrote it; choose another --out")


class Writer:
    """Builds the source in a hidden folder; `finish` puts it in the place of what an earlier run has written."""

    def __init__(self, out: Path, pictures: Path) -> None:
        """Begin anew.

        Args:
            out: where it is to be.
            pictures: folder of the pictures.
        """
        self._out, self._pictures = out, pictures
        self._new = out / ANSWERS / "new"
        shutil.rmtree(self._new, ignore_errors=True)
        self._new.mkdir(parents=True)
        self._sources: list[Source] = []
        self._classes: dict[str, tuple[str, ...] | str] = {}

    def write_boxes(self, rows: Iterator[BoxRow], names: Sequence[str], rules: Rules) -> int:
        """Write COCO JSON, ids of categories counting from 0; gives the number of boxes."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, row in enumerate(rows, start=1):
            self._place(row.picture, Path(_PICTURES, row.picture))
            width, height = row.size
            images.append({"id": number, "file_name": row.picture, "width": width, "height": height})
            for box, score, label, given in zip(
                row.boxes.boxes.tolist(), row.boxes.scores, row.boxes.labels, row.given, strict=True
            ):
                x, y = round(box[0], 2), round(box[1], 2)
                sides = round(box[2] - x, 2), round(box[3] - y, 2)
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": [x, y, *sides],
                    "area": round(sides[0] * sides[1], 2),
                    "iscrowd": 0,
                    "score": round(float(score), 4),
                }
                if given != score:
                    annotation["teacher_score"] = round(float(given), 4)
                annotations.append(annotation)
        categories = [{"id": number, "name": name} for number, name in enumerate(names)]
        document = {"images": images, "annotations": annotations, "categories": categories}
        write_whole(self._new / _BOXES, json.dumps(document, ensure_ascii=False) + "\n")
        self._add(Task.DETECTION, Layout.COCO, names, min_score=rules.min_score, unsure_score=rules.unsure_score)
        return len(annotations)

    def write_masks(self, rows: Iterator[tuple[str, UInt8Array]], names: Sequence[str]) -> None:
        """Write palette PNGs of class ids, 0 for background and 255 for void."""
        for picture, mask in rows:
            self._place(picture, Path(_PICTURES, picture))
            # With an ending of its own, for the name of a picture may end like that of a mask.
            path = (self._new / _MASKS / picture).with_suffix("")
            path = path.with_name(f"{path.name}_mask.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(mask, "P")
            image.putpalette(_make_palette())
            image.save(path)
        listed = "".join(f"{name}\n" for name in (BACKGROUND, *names))
        write_whole(self._new / _MASKS / "classes.txt", listed)
        self._add(Task.SEGMENTATION, Layout.MASKS, (BACKGROUND, *names))

    def write_classes(self, rows: Iterator[tuple[str, int | None, Sequence[float]]], names: Sequence[str]) -> int:
        """Write class folders, and a table of all probabilities; gives the number of pictures that have a class."""
        count = 0
        (self._new / _CLASSES).mkdir()
        with (self._new / _PROBABILITIES).open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("picture", "class", *names))
            for picture, label, probs in rows:
                name = "" if label is None else names[label]
                table.writerow((picture, name, *(f"{prob:.4f}" for prob in probs)))
                if name:
                    count += 1
                    self._place(picture, Path(_CLASSES, name, picture))
        self._add(Task.CLASSIFICATION, Layout.FOLDERS, names)
        return count

    def finish(self, record: Mapping[str, Any]) -> None:
        """Put everything in place; the data file comes last, so that it is there when all is.

        Args:
            record: how the labels came about, as JSON.
        """
        text = json.dumps(record, ensure_ascii=False, indent=1)
        write_whole(self._new / _RECORD, f"{text}\n")
        data = format_data_file(DataFile(classes=Classes(**self._classes), source=tuple(self._sources)))
        (self._out / _DATA_FILE).unlink(missing_ok=True)
        for name in _PARTS:
            old, new = self._out / name, self._new / name
            if old.is_dir():
                shutil.rmtree(old)
            if new.exists():
                new.replace(old)
            else:
                old.unlink(missing_ok=True)
        write_whole(self._out / _DATA_FILE, data)
        shutil.rmtree(self._new)

    def _add(self, task: Task, layout: Layout, names: Sequence[str], **more: float) -> None:
        listed = tuple(names)
        shipped = [word for word, each in SHIPPED.items() if each == listed]
        self._classes[task.value] = shipped[0] if shipped else listed
        self._sources.append(Source(task=task, path=".", layout=layout, split="train", hold_out=HELD_OUT, **more))

    def _place(self, picture: str, place: Path) -> None:
        """Put a picture into the source: a hard link, which takes no room, or a copy where there can be none."""
        path = self._new / place
        if path.exists():  # another task has it too
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        original = (self._pictures / picture).resolve()
        try:
            os.link(original, path)
        except OSError:
            shutil.copyfile(original, path)


def _make_palette() -> bytes:
    """The colours of PASCAL VOC (VOCdevkit, VOClabelcolormap.m): the bits of a value, dealt to red, green and blue."""
    values = np.arange(256)
    bits = [[(values >> (3 * place + channel)) & 1 for place in range(8)] for channel in range(3)]
    colours = [sum(bit << (7 - place) for place, bit in enumerate(channel)) for channel in bits]
    return np.stack(colours, axis=1).astype(np.uint8).tobytes()
