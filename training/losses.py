"""The loss of each task, as named parts that sum to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from training.assigner import CellTargets
from training.config import DetectionLossConfig
from training.data.classes import VOID


def segmentation_loss(logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Cross-entropy per mask cell; void cells count nothing.

    Args:
        logits: [N, G, h, w]; upsampled bilinearly to the masks' size.
        masks: [N, H, W] class ids or void (255); a batch of nothing but void has loss 0.
    """
    upsampled = F.interpolate(logits.float(), size=masks.shape[1:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(upsampled, masks, ignore_index=VOID, reduction="sum")
    return {"segmentation": total / (masks != VOID).sum().clamp(min=1)}


def detection_loss(
    logits: Tensor, targets: Sequence[CellTargets], config: DetectionLossConfig, *, epoch: int
) -> dict[str, Tensor]:
    """The report's loss: confidence over all cells; boxes (smooth L1) and classes (cross-entropy) where boxes are.

    Each part is summed and divided by the number of boxes in the batch (at least 1), not of cells, as RetinaNet does
    (arXiv:1708.02002, sec. 4.1): most cells are empty, and under focal loss easy ones among them weigh next to nothing.

    Args:
        logits: [N, 5 + D, h, w].
        targets: one per picture, on the same grid.
        config: weights, and when confidence turns from BCE to focal loss.
        epoch: of this stage, from 0.
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
        confidence_loss = F.binary_cross_entropy_with_logits(per_cell[..., 4], confidence, reduction="sum")
    else:
        confidence_loss = sigmoid_focal_loss(
            per_cell[..., 4], confidence, alpha=-1, gamma=config.focal_gamma, reduction="sum"
        )
    count = found.sum().clamp(min=1)
    return {
        "confidence": config.confidence_weight * confidence_loss / count,
        "box": config.box_weight * F.smooth_l1_loss(predicted_boxes, boxes, reduction="sum") / count,
        "class": config.class_weight * F.cross_entropy(raw[:, 5:], labels, reduction="sum") / count,
    }


def classification_loss(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of [N, P] logits with [N] class ids."""
    return {"classification": F.cross_entropy(logits.float(), labels)}
