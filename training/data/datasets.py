"""Sets of pictures as lists of samples: paths and annotations, checked at the door, in an order without chance.

Pictures stay on disk until `load_image` or `load_segmentation` asks for them. No torch in here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from service.errors import RequestError
from service.pictures.imaging import FloatArray, UInt8Array, decode
from training.data.layouts.faults import DataError as DataError  # noqa: PLC0414 - those who read data catch it from here
from training.data.layouts.faults import DataWarning as DataWarning  # noqa: PLC0414 - as above
from training.data.layouts.masks import read_values
from training.data.layouts.outlines import Outlines
from training.data.taxonomy import VOID, Taxonomy
from training.data.transforms import Boxes
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
        ignored_labels: [I] positions in the class names, of the class that this is said of; or `ANY_CLASS`.
        known: labels that the picture's source knows about, others are unknown and not background; None: all.
    """

    image: Path
    boxes: FloatArray
    labels: NDArray[np.int64]
    crowd_boxes: FloatArray
    crowd_labels: NDArray[np.int64]
    scores: FloatArray | None = None
    ignored: FloatArray = field(default_factory=lambda: np.zeros((0, 4), dtype=np.float32))
    ignored_labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    known: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class ClassificationSample:
    """A picture and the one class it shows."""

    image: Path
    label: int  # position in the class names


Sample = TypeVar("Sample", bound=SegmentationSample | DetectionSample | ClassificationSample)


class Measured(NamedTuple, Generic[Sample]):
    """Pictures to measure on, and which split they are: `val`, `choose`, or `holdout` for a share of train."""

    split: str
    samples: tuple[Sample, ...]


def name_splits(measured: Mapping[Task, Measured[Any]]) -> dict[str, str]:
    """What each task was measured on, by its name, for the record of a run."""
    return {str(task): one.split for task, one in measured.items()}


@dataclass(frozen=True, slots=True)
class Split(Generic[Sample]):
    """What is learned from, what is measured on, and what is measured for choices; no picture is in two of them.

    Attributes:
        train: learned from.
        val: measured on; may be empty where there is a choose.
        choose: measured for choices, never trained on.
        weights: how often each picture of train is drawn, beside others; empty where all are drawn alike.
        held_out: val is a share of what train was.
    """

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    choose: tuple[Sample, ...] = ()
    weights: tuple[float, ...] = ()
    held_out: bool = False

    @property
    def final(self) -> Measured[Sample]:
        """What the figures of a model are measured on: val, or choose where there is no val."""
        return self._val if self.val else Measured("choose", self.choose)

    @property
    def watched(self) -> Measured[Sample]:
        """What is measured for choices: choose, or val where there is no choose."""
        return Measured("choose", self.choose) if self.choose else self._val

    @property
    def _val(self) -> Measured[Sample]:
        return Measured("holdout" if self.held_out else "val", self.val)


SplitName: TypeAlias = Literal["train", "val", "choose"]
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

    def pictures(
        self, tasks: Sequence[Task], split: SplitName
    ) -> dict[Task, Sequence[SegmentationSample | DetectionSample | ClassificationSample]]:
        """The pictures of one split, for each of the tasks that has some.

        Raises:
            DataError: none has.
        """
        found = {task: getattr(self.split(task), split) for task in tasks}
        if not any(found.values()):
            others = [name for name in get_args(SplitName) if any(getattr(self.split(task), name) for task in tasks)]
            raise DataError(f"the data has no {split} of {' or '.join(tasks)}, only {' and '.join(others)}")
        return {task: samples for task, samples in found.items() if samples}


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


def load_detection(sample: DetectionSample, num_classes: int) -> tuple[UInt8Array, Boxes]:
    """Decode a picture [H, W, 3] RGB, and give its objects and what is not known of it.

    Crowds are regions that are ignored: nobody counted the objects in them, and they are no background.

    Raises:
        DataError: the picture cannot be used.
    """
    image = load_image(sample.image)
    height, width = image.shape[:2]
    boxes = Boxes(
        sample.boxes,
        sample.labels,
        scores=sample.scores,
        ignored=np.concatenate([sample.ignored, sample.crowd_boxes]),
        ignored_labels=np.concatenate([sample.ignored_labels, sample.crowd_labels]),
    )
    if sample.known is None:
        return image, boxes
    unknown = np.ones((1, num_classes), dtype=np.bool_)
    unknown[0, list(sample.known)] = False
    return image, replace(boxes, areas=np.array([[0, 0, width, height]], dtype=np.float32), unknown=unknown)
