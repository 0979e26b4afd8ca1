"""Which anchor point has to find which box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou

from training.data.batches import BoxTargets
from training.detection.points import Points, encode_distances
from training.options.model import PointDetectionConfig

# Stands for 0 under the logarithm: a box that no prediction overlaps still ranks its points by their score.
_TINY = 1e-9


class Assignment(NamedTuple):
    """What each point of one picture, or of a batch of N, has to find.

    Attributes:
        box_index: [A] or [N, A] row of the picture's boxes; -1 is background.
        quality: [A] or [N, A] how well the point suits its box, 0..1; 0 for background.
    """

    box_index: Tensor
    quality: Tensor

    def gather(self, per_picture: Sequence[Tensor]) -> Tensor:
        """Give each assigned point of a batch the row that belongs to its box.

        Args:
            per_picture: [M, ...] of each picture, a row for each of its boxes, on the device of the assignment.

        Returns:
            [P, ...] in the order in which `predictions[box_index >= 0]` lists the assigned points.
        """
        pairs = zip(per_picture, self.box_index, strict=True)
        return torch.cat([rows[index[index >= 0]] for rows, index in pairs])


def _background(points: Points) -> Assignment:
    nothing = torch.zeros_like(points.strides)
    return Assignment(torch.full_like(nothing, -1, dtype=torch.long), nothing)


def _compute_squared_offsets(boxes: Tensor, points: Points) -> Tensor:
    """[A, M] squared distance of each point from each box's centre."""
    return (points.xy[:, None] - (boxes[:, :2] + boxes[:, 2:]) / 2).square().sum(dim=-1)


def _measure_sides(boxes: Tensor, points: Points) -> Tensor:
    """[A, M, 4] distances from each point to the sides of each box; in strides."""
    return encode_distances(boxes, points.xy[:, None], points.strides[:, None])


def make_size_ranges(strides: Tensor, reach: float) -> Tensor:
    """Say how far the sides of its box may lie from each point, so that each level has boxes of its size.

    Args:
        strides: [A] of each point's level; in pixels.
        reach: the farthest side that a level's points have to find; in strides.

    Returns:
        [A, 2] from and below; in pixels. The finest level begins at 0, the coarsest ends at infinity.
    """
    levels = torch.unique(strides)
    ends = reach * levels
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    ends = torch.cat([ends[:-1], ends.new_full((1,), torch.inf)])
    level = torch.searchsorted(levels, strides)
    return torch.stack([starts[level], ends[level]], dim=1)


def assign_by_centre(boxes: Tensor, points: Points, size_ranges: Tensor, *, radius: float) -> Assignment:
    """Give each point the smallest box that it lies inside of and near the centre of, on the level of that size.

    This is FCOS (arXiv:1904.01355, sec. 3.2) with the centre sampling of its journal version (arXiv:2006.09214).
    Beyond it, so that small boxes are learned at all, a box left without a point gets the nearest free one of the
    level that half its longer side belongs to, the smallest box first; it goes without only if that level is full.

    Args:
        boxes: [M, 4] xyxy, sides > 0; in input pixels.
        points: of all levels.
        size_ranges: [A, 2] as `make_size_ranges` gives them.
        radius: how far from a box's centre its points may lie along each axis; in strides.

    Returns:
        One picture's assignment; quality 1 for every point that has a box.
    """
    if not len(boxes):
        return _background(points)
    starts, ends = size_ranges.unbind(dim=1)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    areas = box_area(boxes)
    near = (points.xy[:, None] - centres).abs().amax(dim=-1) < radius * points.strides[:, None]
    distances = _measure_sides(boxes, points) * points.strides[:, None, None]
    reach = distances.amax(dim=-1)
    claims = near & (distances.amin(dim=-1) > 0) & (starts[:, None] <= reach) & (reach < ends[:, None])
    smallest, box_index = torch.where(claims, areas, torch.inf).min(dim=1)
    box_index = torch.where(smallest.isfinite(), box_index, -1)

    order = areas.argsort(stable=True)
    half_sides = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) / 2
    offsets = _compute_squared_offsets(boxes, points)
    for box in order[~torch.isin(order, box_index)].tolist():
        free = (box_index < 0) & (starts <= half_sides[box]) & (half_sides[box] < ends)
        if free.any():
            box_index[torch.where(free, offsets[:, box], torch.inf).argmin()] = box
    return Assignment(box_index, (box_index >= 0).to(points.xy.dtype))


def assign_task_aligned(
    targets: BoxTargets,
    scores: Tensor,
    predicted: Tensor,
    points: Points,
    *,
    top_k: int,
    alpha: float = 1.0,
    beta: float = 6.0,
) -> Assignment:
    """Give each box the points that find it best already (TOOD, arXiv:2108.07755, sec. 3.2).

    A point suits a box by score ** alpha * iou ** beta. Only points inside the box count, or the nearest point where
    there is none. A point that suits several boxes goes to the one that its prediction overlaps most.

    Args:
        targets: of the picture.
        scores: [A, D] that the network finds at its points, 0..1.
        predicted: [A, 4] boxes that it finds there, xyxy; in input pixels.
        points: of all levels.
        top_k: most points a box gets.
        alpha: weight of the score; the paper's.
        beta: weight of the overlap; the paper's.

    Returns:
        One picture's assignment; among a box's points the quality is in proportion to how they suit it, and the
        highest is the best IoU among them. A box that loses all its points to others stays without.
    """
    boxes, labels = targets.boxes, targets.labels
    if not len(boxes):
        return _background(points)
    columns = torch.arange(len(boxes), device=boxes.device)
    iou = box_iou(predicted, boxes)
    # In logarithms, because 0.0001 ** 6 would be rounded to nothing.
    suits = alpha * scores[:, labels].clamp(min=_TINY).log() + beta * iou.clamp(min=_TINY).log()

    candidates = _measure_sides(boxes, points).amin(dim=-1) > 0
    nearest = _compute_squared_offsets(boxes, points).argmin(dim=0)
    candidates[nearest, columns] |= ~candidates.any(dim=0)
    best = suits.masked_fill(~candidates, -torch.inf).topk(min(top_k, len(iou)), dim=0).indices
    chosen = torch.zeros_like(candidates).scatter(0, best, value=True) & candidates

    highest, box_index = iou.masked_fill(~chosen, -1).max(dim=1)
    chosen &= box_index[:, None] == columns
    box_index = torch.where(highest >= 0, box_index, -1)
    best_suits = suits.masked_fill(~chosen, -torch.inf).amax(dim=0)
    best_iou = iou.masked_fill(~chosen, 0).amax(dim=0)
    quality = torch.where(chosen, (suits - best_suits).exp() * best_iou, 0).amax(dim=1)
    return Assignment(box_index, quality)


@torch.no_grad()
def assign_batch(
    logits: Tensor,
    boxes: Tensor,
    targets: Sequence[BoxTargets],
    points: Points,
    config: PointDetectionConfig,
    *,
    progress: float,
) -> Assignment:
    """Assign the points of a batch the way the configuration says.

    Args:
        logits: [N, A, D] scores before the sigmoid.
        boxes: [N, A, 4] predicted, xyxy; in input pixels.
        targets: one per picture, on the device of the predictions.
        points: of all levels.
        config: which assigner, and its settings.
        progress: of the training, 0..1.

    Returns:
        The batch's assignment, [N, A]; without gradient.
    """
    if config.is_task_aligned(progress):
        assignments = [
            assign_task_aligned(target, picture_scores, picture_boxes, points, top_k=config.top_k)
            for target, picture_scores, picture_boxes in zip(targets, logits.sigmoid(), boxes, strict=True)
        ]
    else:
        size_ranges = make_size_ranges(points.strides, config.reach)
        assignments = [
            assign_by_centre(target.boxes, points, size_ranges, radius=config.centre_radius) for target in targets
        ]
    return Assignment(*(torch.stack(parts) for parts in zip(*assignments, strict=True)))
