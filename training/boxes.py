"""Boxes on the grid of the unified head. All boxes are xyxy, in pixels of the network input."""

from __future__ import annotations

import math

import torch
from torch import Tensor

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
