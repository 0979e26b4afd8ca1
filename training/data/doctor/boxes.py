"""What is wrong with the boxes of one COCO file, one by one and as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.data.doctor.codes import Ledger
from training.data.doctor.findings import PictureBox
from training.data.layouts.readings import MIN_SIDE_PX

# Annotators' corners are rounded, and a resize moves them: the official files have boxes out by up to a pixel.
TOLERANCE_PX: Final = 1.0
# A file is judged as a whole: some boxes may be wrong by themselves, a fifth of them may not.
MIN_MISFITS: Final = 3
MIN_MISFIT_SHARE: Final = 0.2
MIN_FIT_SHARE: Final = 0.95


@dataclass(frozen=True, slots=True)
class AnnotatedBox:
    """One box as its file has it.

    Attributes:
        entry: what to call it in sentences: "annotation 7".
        name: class name.
        xywh: x, y, width, height in pixels of the picture, finite.
        width, height: of the picture, as the file says; in pixels.
        is_crowd: it stands for many objects.
    """

    entry: str
    name: str
    xywh: tuple[float, float, float, float]
    width: int
    height: int
    is_crowd: bool

    def as_picture_box(self) -> PictureBox:
        """The box as the file means it, to be drawn."""
        x, y, width, height = self.xywh
        return self.name, (x, y, x + width, y + height), self.is_crowd

    @property
    def is_normalised(self) -> bool:
        """Whether all of it lies in the first pixel, as shares of the picture do."""
        x, y, width, height = self.xywh
        return min(x, y) >= 0 and min(width, height) > 0 and max(self.xywh) <= 1

    @property
    def has_area(self) -> bool:
        """Whether width and height are positive."""
        return min(self.xywh[2:]) > 0

    @property
    def is_inside(self) -> bool:
        """Whether it stays in its picture, but for rounding."""
        x, y, width, height = self.xywh
        return self._holds(x, y, x + width, y + height)

    @property
    def fits_as_corners(self) -> bool:
        """Whether the four numbers, read as x1, y1, x2, y2, are a box in the picture."""
        return self._holds(*self.xywh)

    @property
    def fits_as_sizes_subtracted(self) -> bool:
        """Whether undoing `x2 - x1, y2 - y1` of numbers that were width and height gives a box in the picture."""
        x, y, width, height = self.xywh
        return min(x + width, y + height) > 0 and self._holds(x, y, 2 * x + width, 2 * y + height)

    def _holds(self, x1: float, y1: float, x2: float, y2: float) -> bool:
        inside = min(x1, y1) >= -TOLERANCE_PX and x2 <= self.width + TOLERANCE_PX and y2 <= self.height + TOLERANCE_PX
        return inside and x2 > x1 and y2 > y1


def report_boxes(path: Path, boxes: Sequence[AnnotatedBox], ledger: Ledger) -> None:
    """Write a case for each fault of each box; boxes that fit in the other convention are told as that alone."""
    in_pixels = [box for box in boxes if not box.is_normalised]
    misfits = [box for box in in_pixels if not (box.is_inside and box.has_area)]
    reading = _other_reading(in_pixels, misfits)
    for box in boxes:
        corners = ", ".join(f"{side:g}" for side in box.xywh)
        size = f"the picture's {box.width} x {box.height}"
        if box.is_normalised:
            ledger.add("normalised-box", path, f"[{corners}]; wanted pixels of {size}", entry=box.entry)
        elif reading is not None and not (box.is_inside and box.has_area):
            ledger.add("xywh-taken-for-xyxy", path, f"[{corners}] {reading}", entry=box.entry)
        else:
            _report_box(path, box, f"x, y, width, height = [{corners}]", size, ledger)
        if box.is_crowd:
            ledger.add("crowd-box", path, f"{box.name}; wanted single objects", entry=box.entry)


def _report_box(path: Path, box: AnnotatedBox, came: str, size: str, ledger: Ledger) -> None:
    if not box.has_area:
        ledger.add("box-without-area", path, f"{came}; wanted width and height > 0", entry=box.entry)
    elif not box.is_inside:
        ledger.add("box-outside-picture", path, f"{came}; wanted it within {size}", entry=box.entry)
    elif min(box.xywh[2:]) < MIN_SIDE_PX:
        ledger.add("tiny-box", path, f"{came}; wanted {MIN_SIDE_PX:g} px or more a side", entry=box.entry)


def _other_reading(boxes: Sequence[AnnotatedBox], misfits: Sequence[AnnotatedBox]) -> str | None:
    """Say how a whole file's boxes would fit their pictures, if a fifth do not and nearly all would; else None."""
    if len(misfits) < max(MIN_MISFITS, MIN_MISFIT_SHARE * len(boxes)):
        return None
    if sum(box.fits_as_corners for box in boxes) >= MIN_FIT_SHARE * len(boxes):
        return "fits its picture as x1, y1, x2, y2; wanted x, y, width, height"
    if sum(box.fits_as_sizes_subtracted for box in boxes) >= MIN_FIT_SHARE * len(boxes):
        return "fits once x, y are added to its sizes: they were subtracted as if from corners"
    return None
