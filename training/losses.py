"""The losses of segmentation and classification, as named parts that sum to them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.data.classes import VOID

_WEIGHT_LIMITS = (0.3, 4.0)  # a class of a few thousand pixels must not drown all others


def segmentation_loss(logits: Tensor, masks: Tensor, weights: Tensor | None = None) -> dict[str, Tensor]:
    """Cross-entropy per mask cell; void cells count nothing.

    Args:
        logits: [N, G, h, w]; upsampled bilinearly to the masks' size.
        masks: [N, H, W] class ids or void (255); a batch of nothing but void has loss 0.
        weights: [G] what a cell of each class counts; None: all alike.
    """
    upsampled = F.interpolate(logits.float(), size=masks.shape[1:], mode="bilinear", align_corners=False)
    weights = torch.ones(logits.shape[1], device=logits.device) if weights is None else weights.to(logits.device)
    total = F.cross_entropy(upsampled, masks, weight=weights, ignore_index=VOID, reduction="sum")
    counted = masks != VOID
    # Of nothing but void the sum is 0, and so is what it is divided by.
    return {"segmentation": total / weights[masks[counted]].sum().clamp(min=torch.finfo().tiny)}


def balance_classes(pixels: Tensor, exponent: float) -> Tensor:
    """Let a pixel count the less, the more pixels its class has: (mean share / share) ** exponent, within 0.3 and 4.

    Args:
        pixels: [G] of each class in the training masks.
        exponent: 0: all alike; 1: all classes together count the same.

    Returns:
        [G] whose mean over all pixels is 1.
    """
    shares = pixels.double() / pixels.sum()
    weights = (1 / (len(shares) * shares)).pow(exponent).clamp(*_WEIGHT_LIMITS)
    return (weights / (weights * shares).sum()).float()


def classification_loss(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of [N, P] logits with [N] class ids."""
    return {"classification": F.cross_entropy(logits.float(), labels)}
