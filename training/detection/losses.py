"""The loss of anchor-free detection, as named parts that sum to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_area, generalized_box_iou_loss, sigmoid_focal_loss

from training.data.batches import BoxTargets
from training.detection.assigners import Assignment, assign_batch
from training.detection.points import Points, decode_distances, encode_distances, make_points
from training.detection.regions import find_ignored, find_unknown
from training.options.model import PointDetectionConfig


def quality_focal_loss(logits: Tensor, targets: Tensor, beta: float = 2.0) -> Tensor:
    """Focal loss for targets between 0 and 1 (GFL, arXiv:2006.04388, eq. 3).

    Args:
        logits: [...] before the sigmoid.
        targets: [...] 0..1.
        beta: the further from its target, the more a score counts; the paper's.

    Returns:
        [...] one loss for each logit.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (targets - logits.sigmoid()).abs().pow(beta) * entropy


def soft_focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (arXiv:1708.02002, eq. 5) for targets between 0 and 1, least where the score is its target.

    For targets of 0 and 1 it is `sigmoid_focal_loss`. That one's 1 - p_t would draw a score beyond a target between
    them; the distance to the target in its place, as in GFL (arXiv:2006.04388, eq. 3), does not.

    Args:
        logits: [...] before the sigmoid.
        targets: [...] 0..1.
        alpha: weight of a target of 1, that of 0 being 1 - alpha; the paper's.
        gamma: the further from its target, the more a score counts; the paper's.

    Returns:
        [...] one loss for each logit.
    """
    return (alpha * targets + (1 - alpha) * (1 - targets)) * quality_focal_loss(logits, targets, gamma)


def distribution_focal_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Cross-entropy with the two bins on either side of each distance (GFL, arXiv:2006.04388, eq. 6).

    Args:
        logits: [..., reg_max + 1] over distances of 0, 1, ... reg_max strides; reg_max >= 1.
        distances: [...] in strides; those that the bins cannot say count as the nearest that they can.

    Returns:
        [...] one loss for each distance.
    """
    reg_max = logits.shape[-1] - 1
    distances = distances.clamp(0, reg_max)
    lower = distances.floor().clamp(max=reg_max - 1)
    share = (distances - lower).unsqueeze(-1)
    bins = lower.long().unsqueeze(-1)
    log_probs = logits.log_softmax(dim=-1)
    pair = (1 - share) * log_probs.gather(-1, bins) + share * log_probs.gather(-1, bins + 1)
    return -pair.squeeze(-1)


def _compute_paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """[P] IoU of each of [P, 4] boxes with the other of its row."""
    sides = torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])
    intersection = sides.clamp(min=0).prod(dim=1)
    union: Tensor = box_area(boxes) + box_area(others) - intersection
    return intersection / union


def _fill_scores(target: BoxTargets) -> Tensor:
    return torch.ones_like(target.boxes[:, 0]) if target.scores is None else target.scores


def _find_uncounted(
    targets: Sequence[BoxTargets], points: Points, num_classes: int, picture: Tensor, point: Tensor, labels: Tensor
) -> Tensor | None:
    """[N, A, D] which scores are no background, though no box says what they are to be; None where all count.

    Args:
        targets: one per picture.
        points: of all levels.
        num_classes: D.
        picture: [P] of each assigned point.
        point: [P] its place among the points.
        labels: [P] class of its box.
    """
    uncounted = find_ignored(targets, points, num_classes)
    if uncounted is not None:
        uncounted[picture, point] = False
    unknown = find_unknown(targets, points)
    if unknown is not None:
        unknown[picture, point, labels] = False
        uncounted = unknown if uncounted is None else uncounted | unknown
    return uncounted


def point_detection_loss(
    raw_scores: Tensor,
    raw_boxes: Tensor,
    targets: Sequence[BoxTargets],
    config: PointDetectionConfig,
    *,
    input_size: int,
    strides: Sequence[int],
    progress: float,
) -> tuple[dict[str, Tensor], Assignment]:
    """Score over all points and classes; GIoU, and the sides' distributions, where a point has a box.

    Each part is summed over the batch and divided once by the sum of the qualities (at least 1), which is the number
    of assigned points unless the assignment is task-aligned. Boxes and distributions are weighted by the quality.

    Where boxes have scores and the configuration wants them, a score is the probability that there is such an object:
    what a point is to say is multiplied by it, and so is the weight of its box, and in the sum that all is divided by.

    Points without a box score nothing in what is ignored or unknown there, for they are no background. A region is
    ignored for its own class alone: one that may hold a car holds no cat. A point that has a box counts for all
    classes but those that are unknown, which its object may belong to as well.

    Args:
        raw_scores: [N, A, D] logits.
        raw_boxes: [N, A, 4 * (reg_max + 1)] as `decode_distances` reads them; 4 columns mean no distributions.
        targets: one per picture.
        config: assigner, losses and weights.
        input_size: side of the square input; in pixels.
        strides: of the levels, in the order of the points; in pixels.
        progress: of the training, 0..1.

    Returns:
        The parts "score", "box" and, if the head says distributions, "distribution"; the assignment they rest on,
        for losses of the caller on the same points.
    """
    raw_scores, raw_boxes = raw_scores.float(), raw_boxes.float()
    targets = [target.to(raw_boxes.device) for target in targets]
    points = make_points(input_size, strides, raw_boxes.device)
    reg_max = raw_boxes.shape[-1] // 4 - 1
    boxes = decode_distances(raw_boxes, points.xy, points.strides, reg_max)
    assignment = assign_batch(raw_scores, boxes, targets, points, config, progress=progress)

    picture, point = (assignment.box_index >= 0).nonzero(as_tuple=True)
    found_boxes = boxes[picture, point]
    wanted_boxes = assignment.gather([target.boxes for target in targets])
    labels = assignment.gather([target.labels for target in targets])
    quality = assignment.quality[picture, point]
    soft = config.soft_scores and any(target.scores is not None for target in targets)
    sure = assignment.gather([_fill_scores(target) for target in targets]) if soft else torch.ones_like(quality)
    weights = quality * sure
    total = weights.sum().clamp(min=1)

    score_targets = torch.zeros_like(raw_scores)
    if config.score_loss == "focal":
        score_targets[picture, point, labels] = sure
        scores = (soft_focal_loss if soft else sigmoid_focal_loss)(raw_scores, score_targets)
    else:
        task_aligned = config.is_task_aligned(progress)
        wanted_quality = quality if task_aligned else _compute_paired_iou(found_boxes.detach(), wanted_boxes)
        score_targets[picture, point, labels] = sure * wanted_quality
        scores = quality_focal_loss(raw_scores, score_targets)
    uncounted = _find_uncounted(targets, points, raw_scores.shape[2], picture, point, labels)
    score = (scores if uncounted is None else scores.masked_fill(uncounted, 0)).sum()

    box = (weights * generalized_box_iou_loss(found_boxes, wanted_boxes)).sum()
    parts = {"score": config.score_weight * score / total, "box": config.box_weight * box / total}
    if reg_max:
        wanted = encode_distances(wanted_boxes, points.xy[point], points.strides[point])
        per_side = distribution_focal_loss(raw_boxes[picture, point].reshape(-1, 4, reg_max + 1), wanted)
        distribution = (weights * per_side.mean(dim=1)).sum()
        parts["distribution"] = config.distribution_weight * distribution / total
    return parts, assignment
