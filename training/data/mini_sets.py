"""The three mini sets in the folders that they lie in, any of which may be missing."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.pictures.imaging import FloatArray
from training.data.datasets import (
    ClassificationSample,
    DataError,
    DataSets,
    DataWarning,
    DetectionSample,
    Sample,
    SegmentationSample,
    Split,
)
from training.data.layouts.mini_coco import LabelledBox, parse_coco
from training.data.taxonomy import COCO, IMAGENETTE, MINI
from training.files import JPEG_SUFFIXES, PICTURE_SUFFIXES, hash_file, list_files, list_folders
from training.options.base import Task

# Below the folder that a run is given.
FOLDERS: Final = {
    Task.SEGMENTATION: "mini_voc_seg",
    Task.DETECTION: "mini_coco_det",
    Task.CLASSIFICATION: "imagenette_160",
}


def read_mini_sets(root: Path) -> DataSets:
    """Read `<root>/{mini_voc_seg,mini_coco_det,imagenette_160}`, those that are there.

    Raises:
        DataError: none is there, or see the three readers.
    """
    there = {task: root / name for task, name in FOLDERS.items() if (root / name).is_dir()}
    if not there:
        raise DataError(f"{root}: has none of the folders {', '.join(FOLDERS.values())}")
    return DataSets(
        taxonomy=MINI.keep(there),
        segmentation=read_segmentation(there[Task.SEGMENTATION]) if Task.SEGMENTATION in there else None,
        detection=read_detection(there[Task.DETECTION]) if Task.DETECTION in there else None,
        classification=read_classification(there[Task.CLASSIFICATION]) if Task.CLASSIFICATION in there else None,
    )


def read_segmentation(root: Path) -> Split[SegmentationSample]:
    """Read `<root>/{train,val}/<id>.jpg` with `<id>.png` beside it, sorted by name; mask values are checked on loading.

    Raises:
        DataError: a split folder is missing or empty, or a picture lacks its mask, or a mask its picture.

    Warns:
        DataWarning: a picture of train is also in val, and was dropped from train.
    """
    return _read_split(root, _segmentation_samples)


def read_detection(root: Path, names: Sequence[str] = COCO) -> Split[DetectionSample]:
    """Read `<root>/{train,val}/labels.json` (COCO JSON) with pictures in `data/`, sorted by name.

    Classes are joined by name, never by id. Pictures without objects stay; pictures that the JSON does not list are
    no part of the set.

    Raises:
        DataError: a file is missing or no COCO JSON, a class name is not in `names`, or an id refers to nothing.

    Warns:
        DataWarning: boxes without area or outside their picture were left out; a picture of train is also in val.
    """
    return _read_split(root, lambda folder: _detection_samples(folder, names))


def read_classification(root: Path, names: Iterable[str] = IMAGENETTE) -> Split[ClassificationSample]:
    """Read `<root>/{train,val}/<wnid>/<picture>`, sorted; the label is the wnid's position in `names`.

    Raises:
        DataError: a split folder is missing or empty, or a folder in it is not named after a class.

    Warns:
        DataWarning: a picture of train is also in val, and was dropped from train.
    """
    label_of_wnid = {wnid: label for label, wnid in enumerate(names)}
    return _read_split(root, lambda folder: _classification_samples(folder, label_of_wnid))


def _read_split(root: Path, read: Callable[[Path], list[Sample]]) -> Split[Sample]:
    """Read both halves and drop from train what is also in val, by content or by name."""
    train, val = read(root / "train"), read(root / "val")
    stems = {sample.image.stem for sample in val}
    digests = {hash_file(sample.image) for sample in val}
    leaked = {s.image for s in train if s.image.stem in stems or hash_file(s.image) in digests}
    if leaked:
        names = ", ".join(sorted(path.name for path in leaked))
        warnings.warn(f"{root}: left out of train, because val has them too: {names}", DataWarning, stacklevel=3)
    return Split(tuple(sample for sample in train if sample.image not in leaked), tuple(val))


def _segmentation_samples(folder: Path) -> list[SegmentationSample]:
    files = _list(folder, PICTURE_SUFFIXES)
    masks = {path.stem: path for path in files if path.suffix.lower() == ".png"}
    images = {path.stem: path for path in files if path.suffix.lower() in JPEG_SUFFIXES}
    for stem in sorted(images.keys() ^ masks.keys()):
        present, lacking = (images[stem], "mask .png") if stem in images else (masks[stem], "picture .jpg")
        raise DataError(f"{present}: has no {lacking} of the same name beside it")
    return [SegmentationSample(image, masks[stem]) for stem, image in images.items()]


def _detection_samples(folder: Path, names: Sequence[str]) -> list[DetectionSample]:
    path = folder / "labels.json"
    try:
        coco = parse_coco(json.loads(path.read_bytes()), names)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; wanted the COCO JSON of this split") from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: an entry lacks a field or has it in another shape: {error!r}") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    if coco.faulty_boxes:
        sentence = f"{path}: left out {coco.faulty_boxes} boxes that have no area or lie outside their picture"
        warnings.warn(sentence, DataWarning, stacklevel=5)
    for name in coco.pictures:
        if not (folder / "data" / name).is_file():
            raise DataError(f"{folder / 'data' / name}: no such file; {path} lists it")
    if not coco.pictures:
        raise DataError(f"{path}: lists no picture; wanted at least one")
    return [_detection_sample(folder / "data" / name, boxes) for name, boxes in sorted(coco.pictures.items())]


def _detection_sample(image: Path, annotated: Sequence[LabelledBox]) -> DetectionSample:
    objects = [one for one in annotated if not one.is_crowd]
    crowds = [one for one in annotated if one.is_crowd]
    return DetectionSample(image, *_arrays(objects), *_arrays(crowds))


def _arrays(annotated: Sequence[LabelledBox]) -> tuple[FloatArray, NDArray[np.int64]]:
    boxes = np.array([one.box for one in annotated], dtype=np.float32).reshape(-1, 4)
    return boxes, np.array([one.label for one in annotated], dtype=np.int64)


def _classification_samples(folder: Path, label_of_wnid: dict[str, int]) -> list[ClassificationSample]:
    _require_folder(folder)
    found = {path.name: path for path in list_folders(folder)}
    for name in sorted(found.keys() - label_of_wnid.keys()):
        raise DataError(
            f"{found[name]}: the folder is not named after a class; wanted one of {', '.join(label_of_wnid)}"
        )
    samples = [
        ClassificationSample(image, label)
        for wnid, label in label_of_wnid.items()
        if wnid in found
        for image in _list(found[wnid], PICTURE_SUFFIXES)
    ]
    if not samples:
        raise DataError(f"{folder}: holds no picture; wanted a folder of pictures for each class")
    return samples


def _list(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """List the files with these endings by name; at least one."""
    _require_folder(folder)
    if not (found := list_files(folder, suffixes)):
        raise DataError(f"{folder}: holds no picture; wanted files ending in {', '.join(sorted(suffixes))}")
    return found


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; wanted one with the pictures of this split")
