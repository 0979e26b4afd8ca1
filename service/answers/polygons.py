"""Outlines of a mask's classes, with holes: traced between cells, thinned as long as hardly a pixel changes sides.

The mask that the network gives is a grid of cells, each of which covers a rectangle of the original's pixels. Borders
are traced on the grid and then placed in the original, which is exact and costs the same for pictures of any size.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.pictures.imaging import UInt8Array

# Of the pixels of a class, those that may change sides; an IoU of 0.98 with the mask allows for 1 %.
_BUDGET = 0.009
_FEWEST = 4
Vertex = tuple[int, int]  # column and row of a corner of cells
Point = tuple[int, int]  # x and y in pixels of the original


@dataclass(frozen=True, slots=True)
class Polygon:
    """One connected piece of a class; cells that only touch at a corner are not connected.

    Attributes:
        outline: corners in pixels of the original, clockwise as seen on the screen; the first is not repeated.
        holes: of the same kind, counter-clockwise.
    """

    outline: tuple[Point, ...]
    holes: tuple[tuple[Point, ...], ...]

    def rings(self) -> list[list[int]]:
        """The outline, then the holes, each as x1, y1, x2, y2, ..."""
        return [[value for point in ring for value in point] for ring in (self.outline, *self.holes)]


def find_polygons(
    cells: UInt8Array, rows: NDArray[np.intp], columns: NDArray[np.intp], *, budget: float = _BUDGET
) -> dict[int, list[Polygon]]:
    """Outline each class that occurs.

    Args:
        cells: [h, w] class ids.
        rows: [H] the row of cells that each row of the original's pixels lies in, ascending.
        columns: [W] the same of its columns.
        budget: share of a class's pixels that may change sides; 0 keeps every corner.

    Returns:
        The pieces of each class id, lowest id first; filled by the even-odd rule they cover the class.
    """
    # Rows and columns of cells that no pixel lies in do not exist for the original.
    used_rows, heights = np.unique(rows, return_counts=True)
    used_columns, widths = np.unique(columns, return_counts=True)
    grid = cells[used_rows][:, used_columns]
    y_of, x_of = ([0, *np.cumsum(sizes).tolist()] for sizes in (heights, widths))
    found = {}
    for class_id in np.unique(grid).tolist():
        rings = [[(x_of[x], y_of[y]) for x, y in ring] for ring in _trace(grid == class_id)]
        allowed = budget * abs(sum(map(_signed_area, rings)))
        thinned = _thin(rings, allowed)
        found[class_id] = _assemble(thinned)
    return found


def _trace(inside: NDArray[np.bool_]) -> Iterator[list[Vertex]]:
    """Walk around every region, the region at one's right hand; yields the corners of each ring.

    Where two regions touch at a corner, the walk turns right and stays with its own.
    """
    height, width = inside.shape
    padded = np.zeros((height + 2, width + 2), dtype=np.bool_)
    padded[1:-1, 1:-1] = inside
    # The edges by the direction in which they are walked: right above a cell, down at its right, and so on.
    edges: dict[Vertex, list[Vertex]] = {}
    for (neighbour_y, neighbour_x), (start_x, start_y), (step_x, step_y) in (
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (0, 1)),
        ((1, 0), (1, 1), (-1, 0)),
        ((0, -1), (0, 1), (0, -1)),
    ):
        outside = ~np.roll(padded, (-neighbour_y, -neighbour_x), axis=(0, 1))[1:-1, 1:-1]
        ys, xs = np.nonzero(inside & outside)
        for y, x in zip(ys.tolist(), xs.tolist(), strict=True):
            edges.setdefault((x + start_x, y + start_y), []).append((step_x, step_y))
    while edges:
        start = next(iter(edges))
        yield _walk(edges, start)


def _walk(edges: dict[Vertex, list[Vertex]], start: Vertex) -> list[Vertex]:
    """Follow edges from a vertex until it is reached again, and take them away; returns the corners."""
    ring: list[Vertex] = []
    here, heading = start, (0, 0)
    while here in edges:
        steps = edges[here]
        right = (-heading[1], heading[0])
        step = right if right in steps else steps[0]
        steps.remove(step)
        if not steps:
            del edges[here]
        if step != heading:
            ring.append(here)
        here, heading = (here[0] + step[0], here[1] + step[1]), step
        # A ring may come through its first corner twice; only there is the next step still to be walked.
        if here == start and (-heading[1], heading[0]) not in edges.get(here, ()):
            break
    first, second = ring[0], ring[1]
    # The walk may have begun in the middle of a straight line.
    if (second[0] - first[0]) * heading[1] == (second[1] - first[1]) * heading[0]:
        ring = ring[1:]
    return ring


def _signed_area(ring: list[Point]) -> float:
    """Square pixels inside a ring; negative where it goes counter-clockwise on the screen."""
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True)) / 2


def _thin(rings: list[list[Point]], allowed: float) -> list[list[Point]]:
    """Take corners away, those first that cut off least (Visvalingam and Whyatt, 1993), while all cut off < `allowed`.

    Args:
        rings: of one class.
        allowed: square pixels that may change sides in all; taking a corner away moves no more than its triangle.
    """
    before = [[(i - 1) % len(ring) for i in range(len(ring))] for ring in rings]
    after = [[(i + 1) % len(ring) for i in range(len(ring))] for ring in rings]
    left = [len(ring) for ring in rings]
    gone = [[False] * len(ring) for ring in rings]

    def triangle(r: int, i: int) -> float:
        (x1, y1), (x2, y2), (x3, y3) = (rings[r][j] for j in (before[r][i], i, after[r][i]))
        return abs((x2 - x1) * (y3 - y1) - (x3 - x1) * (y2 - y1)) / 2

    queue = [(triangle(r, i), r, i) for r, ring in enumerate(rings) for i in range(len(ring))]
    heapq.heapify(queue)
    while queue:
        area, r, i = heapq.heappop(queue)
        if gone[r][i] or left[r] <= _FEWEST or area != triangle(r, i):
            continue
        if area > allowed:
            break
        allowed -= area
        gone[r][i] = True
        left[r] -= 1
        after[r][before[r][i]], before[r][after[r][i]] = after[r][i], before[r][i]
        for j in (before[r][i], after[r][i]):
            heapq.heappush(queue, (triangle(r, j), r, j))
    return [[p for p, away in zip(ring, gone[r], strict=True) if not away] for r, ring in enumerate(rings)]


def _assemble(rings: list[list[Point]]) -> list[Polygon]:
    """Give each hole to the smallest outline around it."""
    areas = [_signed_area(ring) for ring in rings]
    outlines = sorted((area, i) for i, area in enumerate(areas) if area > 0)
    holes: dict[int, list[tuple[Point, ...]]] = {i: [] for _, i in outlines}
    for ring, area in zip(rings, areas, strict=True):
        if area < 0:
            larger = [i for size, i in outlines if size > -area]
            owner = next((i for i in larger if _is_inside(ring, rings[i])), larger[0] if larger else outlines[-1][1])
            holes[owner].append(tuple(ring))
    return [Polygon(tuple(rings[i]), tuple(holes[i])) for _, i in reversed(outlines)]


def _is_inside(ring: list[Point], outline: list[Point]) -> bool:
    """Whether most corners of a ring lie inside an outline (even-odd rule, each a little off the grid of corners)."""
    inside = 0
    for x, y in ring:
        px, py, crossings = x + 0.25, y + 0.25, 0
        for (x1, y1), (x2, y2) in zip(outline, outline[1:] + outline[:1], strict=True):
            if (y1 > py) != (y2 > py) and px < (x2 - x1) * (py - y1) / (y2 - y1) + x1:
                crossings += 1
        inside += crossings % 2
    return 2 * inside > len(ring)
