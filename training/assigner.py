"""Which grid cell has to find which box: one box a cell, as in the report."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from training.boxes import encode_cell_boxes


class CellTargets(NamedTuple):
    """What each cell of one picture's grid should say.

    Attributes:
        confidence: [h, w] 1 where a box's centre lies, else 0.
        boxes: [h, w, 4] as `encode_cell_boxes` gives them; zeros where confidence is 0.
        labels: [h, w] class ids; 0 where confidence is 0.
    """

    confidence: Tensor
    boxes: Tensor
    labels: Tensor


def assign_to_cells(boxes: Tensor, labels: Tensor, *, grid_size: int, stride: int) -> CellTargets:
    """Give each box to the cell that its centre lies in; of several in one cell the largest stays.

    Args:
        boxes: [M, 4] xyxy; in input pixels.
        labels: [M] class ids.
        grid_size: cells per side of the grid.
        stride: input pixels per cell.
    """
    confidence = torch.zeros(grid_size, grid_size)
    box_targets = torch.zeros(grid_size, grid_size, 4)
    label_targets = torch.zeros(grid_size, grid_size, dtype=torch.long)
    if len(boxes):
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        order = areas.argsort(stable=True)
        cells, encoded = encode_cell_boxes(boxes, stride)
        cells = cells.clamp(0, grid_size - 1)
        # One by one, because assignment by index array leaves open which of two boxes in a cell wins.
        for index in order.tolist():
            row, column = cells[index].tolist()
            confidence[row, column] = 1
            box_targets[row, column] = encoded[index]
            label_targets[row, column] = labels[index]
    return CellTargets(confidence, box_targets, label_targets)
