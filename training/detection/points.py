"""Boxes as distances from anchor points. All boxes are xyxy, in pixels of the network input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Points(NamedTuple):
    """The anchor points of all levels: level by level, row by row.

    Attributes:
        xy: [A, 2] x, y; in input pixels.
        strides: [A] of each point's level; in pixels.
    """

    xy: Tensor
    strides: Tensor


def make_points(size: int, strides: Sequence[int], device: torch.device) -> Points:
    """Lay a point in the middle of every cell of every level.

    Args:
        size: side of the square input, a multiple of every stride; in pixels.
        strides: of the levels, in the order of the head's outputs; in pixels.
        device: where the points shall lie.

    Raises:
        ValueError: a stride does not divide the size.
    """
    points, point_strides = [], []
    for stride in strides:
        if size % stride:
            raise ValueError(f"the input size must be a multiple of every stride; got {size} and {tuple(strides)}")
        centres = (torch.arange(size // stride, device=device, dtype=torch.float32) + 0.5) * stride
        level = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1).flatten(0, 1)
        points.append(level)
        point_strides.append(torch.full_like(level[:, 0], stride))
    return Points(torch.cat(points), torch.cat(point_strides))


def decode_distances(raw: Tensor, points: Tensor, strides: Tensor, reg_max: int) -> Tensor:
    """Turn what the head says at each point into a box (FCOS, arXiv:1904.01355, sec. 3.1).

    Args:
        raw: [N, A, 4] left, top, right, bottom before the softplus if `reg_max` is 0; else
            [N, A, 4 * (reg_max + 1)] logits of each side's distribution over 0, 1, ... reg_max strides, whose
            expectation is the distance (GFL, arXiv:2006.04388, eq. 5); the bins of one side lie together.
        points: [A, 2] x, y; in input pixels.
        strides: [A] of each point's level; in pixels.
        reg_max: largest distance that a distribution can say; in strides.

    Returns:
        [N, A, 4] xyxy, not clipped to the input; in input pixels.
    """
    if reg_max:
        bins = torch.arange(reg_max + 1, device=raw.device, dtype=raw.dtype)
        logits = raw.reshape(*raw.shape[:-1], 4, reg_max + 1)
        distances = (logits.softmax(dim=-1) * bins).sum(dim=-1)
    else:
        distances = F.softplus(raw)
    distances = distances * strides.unsqueeze(-1)
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def encode_distances(boxes: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Measure from each point to the sides of a box; the inverse of `decode_distances`. The arguments broadcast.

    Args:
        boxes: [..., 4] xyxy; in input pixels.
        points: [..., 2] x, y; in input pixels.
        strides: [...] of each point's level; in pixels.

    Returns:
        [..., 4] left, top, right, bottom, negative where the point lies beyond that side; in strides.
    """
    distances = torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)
    return distances / strides.unsqueeze(-1)
