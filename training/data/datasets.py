"""The three mini sets as lists of samples: paths and annotations, checked at the door, in an order without chance.

Pictures stay on disk until `load_image` or `load_segmentation` asks for them. No torch in here.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import RequestError
from service.pictures.imaging import FloatArray, UInt8Array, decode
from training.data.classes import COCO_CLASSES, IMAGENETTE_CLASSES, VOID
from training.data.coco import LabelledBox, parse_coco
from training.files import JPEG_SUFFIXES, PICTURE_SUFFIXES, hash_file, list_files, list_folders


class DataError(ValueError):
    """The data on disk is not what was asked for; the sentence names the file."""


class DataWarning(UserWarning):
    """The data on disk has a fault that was mended by leaving something out."""


@dataclass(frozen=True, slots=True)
class SegmentationSample:
    """A picture and the palette mask of its size."""

    image: Path
    mask: Path


@dataclass(frozen=True, slots=True, eq=False)
class DetectionSample:
    """A picture and its objects; all boxes are xyxy, in pixels of the original picture, clipped to it.

    Attributes:
        image: the picture's file.
        boxes: [M, 4] objects, at least 2 px wide and high; M may be 0.
        labels: [M] positions in the class names.
        crowd_boxes: [X, 4] regions full of objects nobody counted: no targets, and the metric ignores what is in them.
        crowd_labels: [X] positions in the class names.
    """

    image: Path
    boxes: FloatArray
    labels: NDArray[np.int64]
    crowd_boxes: FloatArray
    crowd_labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClassificationSample:
    """A picture and the one class it shows."""

    image: Path
    label: int  # position in the class names


Sample = TypeVar("Sample", bound=SegmentationSample | DetectionSample | ClassificationSample)


@dataclass(frozen=True, slots=True)
class Split(Generic[Sample]):
    """What is learned from and what is measured on; no picture is in both."""

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class MiniSets:
    """The data of the three tasks."""

    segmentation: Split[SegmentationSample]
    detection: Split[DetectionSample]
    classification: Split[ClassificationSample]


def read_mini_sets(root: Path) -> MiniSets:
    """Read `<root>/{mini_voc_seg,mini_coco_det,imagenette_160}`; raises and warns as the three readers do."""
    return MiniSets(
        segmentation=read_segmentation(root / "mini_voc_seg"),
        detection=read_detection(root / "mini_coco_det"),
        classification=read_classification(root / "imagenette_160"),
    )


def read_segmentation(root: Path) -> Split[SegmentationSample]:
    """Read `<root>/{train,val}/<id>.jpg` with `<id>.png` beside it, sorted by name; mask values are checked on loading.

    Raises:
        DataError: a split folder is missing or empty, or a picture lacks its mask, or a mask its picture.

    Warns:
        DataWarning: a picture of train is also in val, and was dropped from train.
    """
    return _read_split(root, _segmentation_samples)


def read_detection(root: Path, names: Sequence[str] = COCO_CLASSES) -> Split[DetectionSample]:
    """Read `<root>/{train,val}/labels.json` (COCO JSON) with pictures in `data/`, sorted by name.

    Classes are joined by name, never by id. Pictures without objects stay; pictures that the JSON does not list are
    no part of the set.

    Raises:
        DataError: a file is missing or no COCO JSON, a class name is not in `names`, or an id refers to nothing.

    Warns:
        DataWarning: boxes without area or outside their picture were left out; a picture of train is also in val.
    """
    return _read_split(root, lambda folder: _detection_samples(folder, names))


def read_classification(root: Path, names: Iterable[str] = IMAGENETTE_CLASSES) -> Split[ClassificationSample]:
    """Read `<root>/{train,val}/<wnid>/<picture>`, sorted; the label is the wnid's position in `names`.

    Raises:
        DataError: a split folder is missing or empty, or a folder in it is not named after a class.

    Warns:
        DataWarning: a picture of train is also in val, and was dropped from train.
    """
    label_of_wnid = {wnid: label for label, wnid in enumerate(names)}
    return _read_split(root, lambda folder: _classification_samples(folder, label_of_wnid))


def load_image(path: Path) -> UInt8Array:
    """Decode a picture as the service does: [H, W, 3] upright RGB, 0..255.

    Raises:
        DataError: the file cannot be read or decoded.
    """
    try:
        return decode(path.read_bytes())
    except (RequestError, OSError) as error:
        raise DataError(f"{path}: {error}; wanted a JPEG, PNG or WebP picture") from error


def read_mask(path: Path, num_classes: int) -> UInt8Array:
    """Decode a palette (or grey) PNG into the class ids that it stores: [H, W], 0..num_classes-1 or `VOID`.

    Raises:
        DataError: the file cannot be decoded, has colours in place of ids, or holds a value that is no class.
    """
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            mode, mask = picture.mode, np.asarray(picture)
    except (OSError, SyntaxError) as error:  # Pillow reports a damaged chunk as a SyntaxError
        raise DataError(f"{path}: {error}; wanted a palette PNG of class ids") from error
    # Never convert(): the palette would turn ids into colours.
    if mode not in {"P", "L"}:
        raise DataError(f"{path}: the mask's mode is {mode}; wanted P or L, one class id a pixel")
    occurring = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    strange = [value for value in occurring.tolist() if value >= num_classes and value != VOID]
    if strange:
        raise DataError(f"{path}: the mask holds {strange}; wanted classes 0..{num_classes - 1} or void {VOID}")
    return mask


def load_segmentation(sample: SegmentationSample, num_classes: int) -> tuple[UInt8Array, UInt8Array]:
    """Decode a picture [H, W, 3] RGB and its mask [H, W] of class ids or `VOID`.

    Raises:
        DataError: one of the files cannot be used, or their sizes differ.
    """
    image, mask = load_image(sample.image), read_mask(sample.mask, num_classes)
    if image.shape[:2] != mask.shape:
        height, width = image.shape[:2]
        raise DataError(
            f"{sample.mask}: the mask is {mask.shape[1]} x {mask.shape[0]}, its picture {width} x {height}; "
            "wanted the same size"
        )
    return image, mask


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
