"""What each task's logits are to become: the loss of its labels, as named parts that sum to it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import Config, StageConfig, Task
from training.data.batches import Batch
from training.data.feed.dataset import TaskDataset
from training.data.taxonomy import VOID
from training.detection.schemes import build_scheme

# Logits of the task, the batch, and the epoch of the stage from 0, to named parts that are summed.
Objective = Callable[[Tensor, Batch, int], dict[str, Tensor]]
FinalObjective = Callable[[Tensor, Batch], dict[str, Tensor]]

_WEIGHT_LIMITS = (0.3, 4.0)  # a class of a few thousand pixels must not drown all others


def make_objective(config: Config, task: Task, *, epochs: int, dataset: TaskDataset | None = None) -> Objective:
    """Choose the loss of a task's labels.

    Args:
        config: of the run.
        task: which one.
        epochs: of the stage; some losses change on the way.
        dataset: the task's training pictures, whose classes are balanced.

    Raises:
        ValueError: classes are to be balanced, and there is no dataset.
    """
    scheme = build_scheme(config)
    weights = None
    if task is Task.SEGMENTATION and config.segmentation_loss.class_balance:
        if dataset is None:
            raise ValueError("class_balance needs the training pictures; got none")
        weights = balance_classes(torch.from_numpy(dataset.count_pixels()), config.segmentation_loss.class_balance)

    def compute(logits: Tensor, batch: Batch, epoch: int) -> dict[str, Tensor]:
        if isinstance(batch.targets, tuple):
            size = batch.images.shape[1]
            return scheme.loss(logits, batch.targets, input_size=size, epoch=epoch, epochs=epochs)
        if task is Task.SEGMENTATION:
            return segmentation_loss(logits, batch.targets, weights)
        return classification_loss(logits, batch.targets)

    return compute


def make_final_objective(config: Config, stage: StageConfig, dataset: TaskDataset) -> FinalObjective:
    """Choose the loss that a stage ends with, as `make_objective` does."""
    objective = make_objective(config, stage.task, epochs=stage.epochs, dataset=dataset)
    return lambda logits, batch: objective(logits, batch, stage.epochs - 1)


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
