"""The report's head: one convolution whose output rows are split among the tasks."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from training.config import Task
from training.models.pyramid import Features

BOX_ROWS = 5  # of detection, before its classes: cx, cy, w, h, confidence
UNIFIED_ORDER = (Task.DETECTION, Task.SEGMENTATION, Task.CLASSIFICATION)  # of the tasks' rows


class TaskLogits(NamedTuple):
    """What the network says before any sigmoid or softmax; None where it has no head.

    Attributes:
        detection: as the model's detection scheme wants it (`training.detection.schemes`).
        segmentation: [N, G, h, w] class logits at the stride of the head's grid.
        classification: [N, P] class logits.
    """

    detection: Tensor | None = None
    segmentation: Tensor | None = None
    classification: Tensor | None = None


class UnifiedHead(nn.Module):
    """A shared 3x3 conv, then one 1x1 conv whose output rows are split among the tasks.

    Attributes:
        rows: the output rows of `predict` that belong to each task that there is.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: dict[Task, int]) -> None:
        super().__init__()
        self.rows: dict[Task, slice] = {}
        end = 0
        for task in UNIFIED_ORDER:
            if task in num_classes:
                size = num_classes[task] + (BOX_ROWS if task is Task.DETECTION else 0)
                self.rows[task] = slice(end, end + size)
                end += size
        self.stem = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU())
        self.predict = nn.Conv2d(channels, end, 1)

    def forward(self, features: Features) -> TaskLogits:
        """The coarsest level [N, in_channels, h, w] to the logits of the tasks, on its grid."""
        rows = self.predict(self.stem(features.levels[-1]))
        return TaskLogits(**{task.value: self._read(rows, task) for task in self.rows})

    def answer(self, features: Features, task: Task) -> Tensor:
        """The logits of one task."""
        return self._read(self.predict(self.stem(features.levels[-1])), task)

    def _read(self, rows: Tensor, task: Task) -> Tensor:
        mine = rows[:, self.rows[task]]
        return mine.mean(dim=(2, 3)) if task is Task.CLASSIFICATION else mine
