"""What each task's logits are to become: the loss of its labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from training.config import Config, Task
from training.data.batches import Batch
from training.data.loaders import TaskDataset
from training.detection.schemes import build_scheme
from training.losses import balance_classes, classification_loss, segmentation_loss

# Logits of the task, the batch, and the epoch of the stage from 0, to named parts that are summed.
Objective = Callable[[Tensor, Batch, int], dict[str, Tensor]]


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
