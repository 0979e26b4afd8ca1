"""Heads: from the neck's features to the logits of all three tasks."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from training.config import Task

BOX_ROWS = 5  # cx, cy, w, h, confidence


class TaskLogits(NamedTuple):
    """What the network says before any sigmoid or softmax.

    Attributes:
        detection: [N, 5 + D, h, w] raw cx, cy, w, h, confidence, then D class logits per grid cell.
        segmentation: [N, G, h, w] class logits at the stride of the grid.
        classification: [N, P] class logits.
    """

    detection: Tensor
    segmentation: Tensor
    classification: Tensor


class UnifiedHead(nn.Module):
    """The report's head: a shared 3x3 conv, then one 1x1 conv whose output rows are split among the tasks.

    Attributes:
        rows: the output rows of `predict` that belong to each task.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: dict[Task, int]) -> None:
        super().__init__()
        sizes = {
            Task.DETECTION: BOX_ROWS + num_classes[Task.DETECTION],
            Task.SEGMENTATION: num_classes[Task.SEGMENTATION],
            Task.CLASSIFICATION: num_classes[Task.CLASSIFICATION],
        }
        self.rows: dict[Task, slice] = {}
        end = 0
        for task, size in sizes.items():
            self.rows[task] = slice(end, end + size)
            end += size
        self.stem = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU())
        self.predict = nn.Conv2d(channels, end, 1)

    def forward(self, features: Tensor) -> TaskLogits:
        """[N, in_channels, h, w] to the logits of the three tasks on the same grid."""
        rows = self.predict(self.stem(features))
        return TaskLogits(
            detection=rows[:, self.rows[Task.DETECTION]],
            segmentation=rows[:, self.rows[Task.SEGMENTATION]],
            classification=rows[:, self.rows[Task.CLASSIFICATION]].mean(dim=(2, 3)),
        )
