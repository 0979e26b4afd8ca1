"""Sets of pictures as lists of samples: paths and annotations, checked at the door, in an order without chance.

Pictures stay on disk until `load_image` or `load_segmentation` asks for them. No torch in here.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.errors import RequestError
from service.pictures.imaging import FloatArray, UInt8Array, decode
from training.data.layouts.faults import DataError as DataError  # noqa: PLC0414 - those who read data catch it from here
from training.data.layouts.faults import DataWarning as DataWarning  # noqa: PLC0414 - as above
from training.data.layouts.masks import read_values
from training.data.layouts.mini_coco import LabelledBox, parse_coco
from training.data.layouts.outlines import Outlines
from training.data.taxonomy import COCO, IMAGENETTE, VOID, Taxonomy
from training.files import JPEG_SUFFIXES, PICTURE_SUFFIXES, hash_file, list_files, list_folders
from training.options.base import Task


@dataclass(frozen=True, slots=True)
class SegmentationSample:
    """A picture and the mask of its size.

    Attributes:
        image: the picture's file.
        mask: the mask's file, or the outlines that it is drawn from.
        values: the label, `VOID`, or -1 for none of both, of each of 256 values of the mask; None where the mask stores
            labels.
    """

    image: Path
    mask: Path | Outlines
    values: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DetectionSample:
    """A picture and its objects; all boxes are xyxy, in pixels of the original picture, clipped to it.

    Attributes:
        image: the picture's file.
        boxes: [M, 4] objects, at least 2 px wide and high; M may be 0.
        labels: [M] positions in the class names.
        crowd_boxes: [X, 4] regions full of objects nobody counted: no targets, and the metric ignores what is in them.
        crowd_labels: [X] positions in the class names.
        scores: [M] 0..1, where the labels carry one.
        ignored: [I, 4] regions that are neither object nor background.
        known: labels that the picture's source knows about, others are unknown and not background; None: all.
    """

    image: Path
    boxes: FloatArray
    labels: NDArray[np.int64]
    crowd_boxes: FloatArray
    crowd_labels: NDArray[np.int64]
    scores: FloatArray | None = None
    ignored: FloatArray = field(default_factory=lambda: np.zeros((0, 4), dtype=np.float32))
    known: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class ClassificationSample:
    """A picture and the one class it shows."""

    image: Path
    label: int  # position in the class names


Sample = TypeVar("Sample", bound=SegmentationSample | DetectionSample | ClassificationSample)


@dataclass(frozen=True, slots=True)
class Split(Generic[Sample]):
    """What is learned from, what is measured on, and what is measured for choices; no picture is in two of them.

    Attributes:
        train: learned from.
        val: measured on.
        choose: measured for choices, never trained on.
        weights: how often each picture of train is drawn, beside others; empty where all are drawn alike.
    """

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    choose: tuple[Sample, ...] = ()
    weights: tuple[float, ...] = ()


AnySplit: TypeAlias = Split[SegmentationSample] | Split[DetectionSample] | Split[ClassificationSample]


@dataclass(frozen=True, slots=True)
class DataSets:
    """The data of one, two or three tasks, and the classes that its labels are positions of."""

    taxonomy: Taxonomy
    segmentation: Split[SegmentationSample] | None = None
    detection: Split[DetectionSample] | None = None
    classification: Split[ClassificationSample] | None = None

    def split(self, task: Task) -> AnySplit:
        """The pictures of a task.

        Raises:
            DataError: there are none.
        """
        split: AnySplit | None = getattr(self, task.value)
        if split is None:
            raise DataError(f"the data has nothing of {task}, only of {', '.join(self.taxonomy.tasks)}")
        return split


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


def load_image(path: Path) -> UInt8Array:
    """Decode a picture as the service does: [H, W, 3] upright RGB, 0..255.

    Raises:
        DataError: the file cannot be read or decoded.
    """
    try:
        return decode(path.read_bytes())
    except (RequestError, OSError) as error:
        raise DataError(f"{path}: {error}; wanted a JPEG, PNG or WebP picture") from error


def read_mask(path: Path | Outlines, num_classes: int, values: Sequence[int] | None = None) -> UInt8Array:
    """Decode a mask into labels: [H, W], 0..num_classes-1 or `VOID`.

    Args:
        path: a palette or grey PNG that stores numbers; or outlines.
        num_classes: how many labels there are.
        values: label of each of 256 numbers, see `SegmentationSample`.

    Raises:
        DataError: the file cannot be decoded, has colours in place of numbers, or holds a value that is no class.
    """
    if isinstance(path, Outlines):
        return path.draw()
    try:
        stored = read_values(path)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    occurring = np.flatnonzero(np.bincount(stored.ravel(), minlength=256)).tolist()
    if values is None:
        strange = [value for value in occurring if value >= num_classes and value != VOID]
        wanted = f"classes 0..{num_classes - 1} or void {VOID}"
    else:
        strange = [value for value in occurring if values[value] < 0]
        wanted = ", ".join(str(value) for value, label in enumerate(values) if label >= 0)
    if strange:
        raise DataError(f"{path}: the mask holds {strange}; wanted {wanted}")
    return stored if values is None else np.array(values, dtype=np.int16).astype(np.uint8)[stored]


def load_segmentation(sample: SegmentationSample, num_classes: int) -> tuple[UInt8Array, UInt8Array]:
    """Decode a picture [H, W, 3] RGB and its mask [H, W] of labels or `VOID`.

    Raises:
        DataError: one of the files cannot be used, or their sizes differ.
    """
    image, mask = load_image(sample.image), read_mask(sample.mask, num_classes, sample.values)
    if image.shape[:2] != mask.shape:
        height, width = image.shape[:2]
        path = sample.mask if isinstance(sample.mask, Path) else sample.image
        raise DataError(
            f"{path}: the mask is {mask.shape[1]} x {mask.shape[0]}, its picture {width} x {height}; "
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
