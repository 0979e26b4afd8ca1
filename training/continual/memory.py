"""The few pictures that are kept of each earlier task: which ones, and which of them a step sees."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.config import Task
from training.data.batches import Batch, move_batch
from training.data.feed.dataset import TaskDataset
from training.data.taxonomy import VOID
from training.data.transforms import Boxes, Target
from training.hooks.context import StageContext
from training.hooks.passes import evaluating, mixed_precision
from training.objectives import make_final_objective


def find_classes(target: Target) -> set[int]:
    """List the classes that a picture shows; background is one, void is none."""
    if isinstance(target, int):
        return {target}
    labels = target.labels if isinstance(target, Boxes) else target
    return set(np.unique(labels).tolist()) - {VOID}


def choose_pictures(classes: Sequence[Collection[int]], count: int) -> list[int]:
    """Choose pictures that show as many classes as they can: greedy set cover.

    Each is the one that shows most classes that no chosen one has shown, the first of several; when no class is left,
    covering begins again.

    Args:
        classes: that each picture shows.
        count: most pictures to choose.

    Returns:
        Their indices in the order of choice.
    """
    chosen: list[int] = []
    covered: set[int] = set()
    left = list(range(len(classes)))
    while left and len(chosen) < count:
        if not any(set(classes[index]) - covered for index in left):
            covered = set()
        best = max(left, key=lambda index: len(set(classes[index]) - covered))  # max gives the first of equals
        chosen.append(best)
        covered |= set(classes[best])
        left.remove(best)
    return chosen


class Remembered(NamedTuple):
    """The pictures of one task among those that a step draws.

    Attributes:
        task: theirs.
        rows: of the task's batch in the memory.
        batch: the pictures, on the device of the network.
        share: of the pictures drawn, 0..1.
    """

    task: Task
    rows: list[int]
    batch: Batch
    share: float


class Memory:
    """A few pictures of each earlier task, letterboxed without augmentation.

    The network is asked about them in evaluation mode: its batch-norm statistics shall be those of the new task's
    batches, not of the two pictures remembered in a step.

    Attributes:
        batches: all that is remembered, by task, on the CPU.
    """

    def __init__(self, context: StageContext, *, pictures: int, batch: int) -> None:
        """Choose the pictures.

        Args:
            context: the stage; the labels of every earlier task are read once.
            pictures: per earlier task.
            batch: pictures that a step draws, of all tasks together.
        """
        self._context = context
        self._batch = batch
        self.batches = {task: _choose_batch(context.datasets[task], pictures) for task in context.learned}
        self._objectives = {
            stage.task: make_final_objective(context.config, stage, context.datasets[stage.task])
            for stage in context.config.stages
            if stage.task in context.learned
        }

    def draw(self, progress: float) -> list[Remembered]:
        """Draw this step's pictures, without doubles, from all that are remembered.

        The draw is decided by the seed, the stage and its progress: a run that was interrupted draws the same.
        """
        rng = np.random.default_rng([self._context.config.seed, len(self._context.learned), int(progress * 2**40)])
        everything = [(task, row) for task, batch in self.batches.items() for row in range(len(batch.images))]
        count = min(self._batch, len(everything))
        drawn = [everything[index] for index in sorted(rng.choice(len(everything), count, replace=False).tolist())]
        found = []
        for task, batch in self.batches.items():
            if rows := [row for owner, row in drawn if owner is task]:
                moved = move_batch(batch.select(rows), self._context.device)
                found.append(Remembered(task, rows, moved, len(rows) / count))
        return found

    def answer(self, remembered: Remembered) -> Tensor:
        """The logits of the pictures' task; gradients flow into the network."""
        model = self._context.model
        with evaluating(model), mixed_precision(self._context.device):
            return model.head.answer(model.extract(remembered.batch.images), remembered.task)

    def label_loss(self, remembered: Remembered, logits: Tensor) -> Tensor:
        """The loss that the task's own stage ended with."""
        parts = self._objectives[remembered.task](logits, remembered.batch)
        return torch.stack(list(parts.values())).sum()


def _choose_batch(dataset: TaskDataset, pictures: int) -> Batch:
    classes = [find_classes(target) for target in dataset.load_targets()]
    return dataset.make_batch(choose_pictures(classes, pictures))
