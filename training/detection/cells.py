"""The report's detection: one box a grid cell. All boxes are xyxy, in pixels of the network input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from training.config import DetectionLossConfig

# exp() of more would be a box of 62 cells a side; torchvision clamps the same way in its box coder.
_MAX_LOG_SIZE = math.log(1000 / 16)


def encode_cell_boxes(boxes: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Say which cell each box's centre lies in, and where (YOLOv3, arXiv:1804.02767, sec. 2.1, without anchors).

    Args:
        boxes: [M, 4] xyxy, sides > 0, centres inside the input; in input pixels.
        stride: of the grid; in input pixels.

    Returns:
        [M, 2] row and column of the cell; [M, 4] centre offset inside the cell (x, y: 0..1)
        and log of width and height in strides.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / stride
    cells = centres.floor()
    sizes = ((boxes[:, 2:] - boxes[:, :2]) / stride).log()
    return cells.flip(1).long(), torch.cat([centres - cells, sizes], dim=1)


def decode_cell_boxes(raw: Tensor, stride: int) -> Tensor:
    """Turn the head's raw cx, cy, w, h into boxes; the inverse of `encode_cell_boxes`.

    Args:
        raw: [N, 4, h, w] offsets before the sigmoid, sizes as log of strides.
        stride: of the grid; in input pixels.

    Returns:
        [N, h * w, 4] xyxy, clipped to the input; in input pixels; cells row by row.
    """
    height, width = raw.shape[2:]
    columns = torch.arange(width, device=raw.device, dtype=raw.dtype).view(1, 1, width)
    rows = torch.arange(height, device=raw.device, dtype=raw.dtype).view(1, height, 1)
    centre_x = (raw[:, 0].sigmoid() + columns) * stride
    centre_y = (raw[:, 1].sigmoid() + rows) * stride
    half_w = raw[:, 2].clamp(max=_MAX_LOG_SIZE).exp() * (stride / 2)
    half_h = raw[:, 3].clamp(max=_MAX_LOG_SIZE).exp() * (stride / 2)
    x1, x2 = ((centre_x + sign * half_w).clamp(0, width * stride) for sign in (-1, 1))
    y1, y2 = ((centre_y + sign * half_h).clamp(0, height * stride) for sign in (-1, 1))
    return torch.stack([x1, y1, x2, y2], dim=-1).flatten(1, 2)


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


def cell_loss(
    logits: Tensor,
    targets: Sequence[CellTargets],
    config: DetectionLossConfig,
    *,
    epoch: int,
    ignored: Tensor | None = None,
) -> dict[str, Tensor]:
    """The report's loss: confidence over all cells; boxes (smooth L1) and classes (cross-entropy) where boxes are.

    Each part is summed and divided by the number of boxes in the batch (at least 1), not of cells, as RetinaNet does
    (arXiv:1708.02002, sec. 4.1): most cells are empty, and under focal loss easy ones among them weigh next to nothing.

    Args:
        logits: [N, 5 + D, h, w].
        targets: one per picture, on the same grid.
        config: weights, and when confidence turns from BCE to focal loss.
        epoch: of this stage, from 0.
        ignored: [N, h, w] cells whose confidence counts nothing if no box has its centre there; None: all count.
    """
    logits = logits.float()
    confidence = torch.stack([target.confidence for target in targets]).to(logits.device)
    found = confidence > 0
    boxes = torch.stack([target.boxes for target in targets]).to(logits.device)[found]
    labels = torch.stack([target.labels for target in targets]).to(logits.device)[found]
    per_cell = logits.permute(0, 2, 3, 1)
    raw = per_cell[found]
    predicted_boxes = torch.cat([raw[:, :2].sigmoid(), raw[:, 2:4]], dim=1)
    if epoch < config.bce_epochs:
        losses = F.binary_cross_entropy_with_logits(per_cell[..., 4], confidence, reduction="none")
    else:
        losses = sigmoid_focal_loss(per_cell[..., 4], confidence, alpha=-1, gamma=config.focal_gamma)
    confidence_loss = (losses if ignored is None else losses.masked_fill(ignored & ~found, 0)).sum()
    count = found.sum().clamp(min=1)
    return {
        "confidence": config.confidence_weight * confidence_loss / count,
        "box": config.box_weight * F.smooth_l1_loss(predicted_boxes, boxes, reduction="sum") / count,
        "class": config.class_weight * F.cross_entropy(raw[:, 5:], labels, reduction="sum") / count,
    }
