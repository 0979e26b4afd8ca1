"""What a stage's methods are built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from training.config import Config, StageConfig, Task
from training.data.feed.dataset import TaskDataset
from training.data.taxonomy import Taxonomy
from training.hooks.anchor import Anchor
from training.models.multitask import MultiTaskModel


@dataclass(frozen=True, slots=True)
class StageContext:
    """One stage of one run; enough to build the same methods again when a killed run goes on.

    Attributes:
        config: of the run.
        stage: the one that is under way.
        model: that learns; its weights may be those of any epoch of the stage.
        before: state of the network when the stage began, on the CPU.
        anchors: of the earlier tasks, for elastic weight consolidation.
        learned: the earlier tasks, in the order in which they were learned.
        datasets: the training pictures by task, of the earlier ones and the stage's own.
        device: where the network is.
        taxonomy: the classes of the network's tasks.
    """

    config: Config
    stage: StageConfig
    model: MultiTaskModel
    before: Mapping[str, Tensor]
    anchors: Mapping[str, Anchor]
    learned: tuple[Task, ...]
    datasets: Mapping[Task, TaskDataset]
    device: torch.device
    taxonomy: Taxonomy
