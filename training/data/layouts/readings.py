"""What a reader gives: pictures with their labels, whose numbers count the names that the source itself has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.pictures.imaging import FloatArray
from training.data.layouts.outlines import Outlines
from training.options.base import Task

# A box that is less wide or high is neither an object nor background.
MIN_SIDE_PX: Final = 2.0


class Layout(StrEnum):
    """How a set lies on disk, by the word that a data file has for it."""

    MASKS = "masks"
    VOC_MASKS = "voc-masks"
    COCO_MASKS = "coco-masks"
    COCO = "coco"
    YOLO = "yolo"
    VOC = "voc"
    FOLDERS = "folders"

    @property
    def task(self) -> Task:
        """The task that such a set is for."""
        if self in {Layout.MASKS, Layout.VOC_MASKS, Layout.COCO_MASKS}:
            return Task.SEGMENTATION
        return Task.CLASSIFICATION if self is Layout.FOLDERS else Task.DETECTION

    @property
    def words(self) -> str:
        """The layout for people."""
        return _WORDS[self]


_WORDS = {
    Layout.MASKS: "pictures and masks",
    Layout.VOC_MASKS: "PASCAL VOC masks",
    Layout.COCO_MASKS: "COCO outlines",
    Layout.COCO: "COCO JSON",
    Layout.YOLO: "YOLO txt",
    Layout.VOC: "PASCAL VOC XML",
    Layout.FOLDERS: "class folders",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where one split of a set lies.

    Attributes:
        root: of the set; names of classes may lie here.
        pictures: folders that its pictures are looked for in, the likeliest first; or the files themselves.
        listing: its annotation file or list of names, where the layout has one.
    """

    root: Path
    pictures: tuple[Path, ...]
    listing: Path | None = None

    @property
    def source(self) -> Path:
        """The file or folder that says what the split holds."""
        return self.listing or (self.pictures[0] if len(self.pictures) == 1 else self.root)


@dataclass(frozen=True, slots=True)
class FoundSet:
    """One set: its splits are those that exist; a set that is not split has `all` alone."""

    layout: Layout
    root: Path
    places: Mapping[str, Place]


@dataclass(frozen=True, slots=True, eq=False)
class BoxRows:
    """The boxes of one picture.

    Attributes:
        xyxy: [M, 4] in pixels of the upright picture, clipped to it.
        labels: [M] positions in the reading's names.
        crowd: [M] whether it is a region full of objects, or one too hard to tell: no target, and never background.
        scores: [M] 0..1 where labels carry one; else None.
    """

    xyxy: FloatArray
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    scores: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """A picture and what is said of it, by task.

    Attributes:
        image: the picture's file; it exists.
        mask: values by file, or outlines to be filled.
        boxes: its objects.
        label: position of its class in the reading's names.
        shown: positions of classes that it shows, wherever in it; None where nothing says so.
        size: (width, height) as an annotation file says, in pixels.
    """

    image: Path
    mask: Path | Outlines | None = None
    boxes: BoxRows | None = None
    label: int | None = None
    shown: tuple[int, ...] | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One split as its files have it.

    Attributes:
        source: the file or folder that says so.
        names: by label, or by mask value; None where a value has no name.
        pictures: sorted by path.
        ids: id by class name where the files have some of their own.
    """

    source: Path
    names: tuple[str | None, ...]
    pictures: tuple[Labelled, ...]
    ids: Mapping[str, object] = field(default_factory=dict)


def make_boxes(
    rows: Sequence[tuple[tuple[float, float, float, float], int, bool, float | None]],
) -> BoxRows:
    """Arrays of (xyxy, label, crowd, score); scores are kept only where a row has one."""
    scores = None
    if any(score is not None for *_, score in rows):
        scores = np.array([1.0 if score is None else score for *_, score in rows], dtype=np.float32)
    return BoxRows(
        np.array([xyxy for xyxy, *_ in rows], dtype=np.float32).reshape(-1, 4),
        np.array([label for _, label, *_ in rows], dtype=np.int64),
        np.array([crowd for *_, crowd, _ in rows], dtype=np.bool_),
        scores,
    )


def clip(
    xyxy: tuple[float, float, float, float], width: float, height: float
) -> tuple[tuple[float, float, float, float] | None, str]:
    """Clip a box to its picture.

    Returns:
        The box, or None and the code of what is wrong with it.
    """
    x1, y1, x2, y2 = xyxy
    if not x2 > x1 or not y2 > y1 or not all(np.isfinite(xyxy)):
        return None, "box-without-area"
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        return None, "box-outside-picture"
    return (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))), ""
