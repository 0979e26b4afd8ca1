"""The objects of a mask: what hangs together, with a box around each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.pictures.imaging import UInt8Array
from training.data.taxonomy import VOID
from training.data.transforms import Boxes

# An object may be cut in two by what stands before it; splinters of one are no objects.
_LEAST_SHARE = 0.1
_LEAST_AREA_PX = 64


@dataclass(slots=True)
class _Component:
    """Runs of one class that touch, row by row; a merged one points to the one that took it in."""

    label: int
    left: int
    top: int
    right: int
    bottom: int
    area: int
    merged_into: _Component | None = None

    def root(self) -> _Component:
        component = self
        while component.merged_into is not None:
            component = component.merged_into
        return component

    def take_in(self, other: _Component) -> None:
        other.merged_into = self
        self.left, self.top = min(self.left, other.left), min(self.top, other.top)
        self.right, self.bottom = max(self.right, other.right), max(self.bottom, other.bottom)
        self.area += other.area


def find_objects(mask: UInt8Array) -> Boxes:
    """Box every piece of a mask that hangs together, side by side or one above the other, and is of one class.

    VOC draws a line of void around each object, so that two of a class that touch are two pieces. Pieces of less than
    64 pixels, and those of less than a tenth of the picture's largest of their class, are left out.

    Args:
        mask: [H, W] class ids; background is 0, void is no class.

    Returns:
        Boxes in pixels of the mask, from top to bottom, with labels 1 and up.
    """
    components: list[_Component] = []
    above: list[_Component] = []  # the runs of the row above, each with the part of its own row that it covers
    above_spans: list[tuple[int, int]] = []
    for y, row in enumerate(mask):
        spans, runs = [], []
        for left, right in _find_runs(row):
            run = _Component(int(row[left]), left, y, right, y + 1, right - left)
            components.append(run)
            for (start, end), neighbour in zip(above_spans, above, strict=True):
                if start < right and left < end and neighbour.label == run.label:
                    first, second = neighbour.root(), run.root()
                    if first is not second:
                        first.take_in(second)
            spans.append((left, right))
            runs.append(run)
        above, above_spans = runs, spans
    return _box(components)


def _find_runs(row: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Where runs of one class begin and end; background and void are left out."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(row)) + 1])
    ends = np.append(starts[1:], len(row))
    kept = (row[starts] != 0) & (row[starts] != VOID)
    return list(zip(starts[kept].tolist(), ends[kept].tolist(), strict=True))


def _box(components: list[_Component]) -> Boxes:
    whole = [component for component in components if component.merged_into is None]
    largest: dict[int, int] = {}
    for component in whole:
        largest[component.label] = max(largest.get(component.label, 0), component.area)
    kept = [one for one in whole if one.area >= max(_LEAST_AREA_PX, _LEAST_SHARE * largest[one.label])]
    boxes = np.array([(one.left, one.top, one.right, one.bottom) for one in kept], dtype=np.float32).reshape(-1, 4)
    return Boxes(boxes, np.array([one.label for one in kept], dtype=np.int64))
