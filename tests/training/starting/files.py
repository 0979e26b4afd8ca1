"""Checkpoints that runs start from, without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.training.fakes import make_branches_config
from training.checkpoint import Checkpoint, save_checkpoint
from training.config import Config, Task
from training.data.taxonomy import Taxonomy
from training.models.multitask import MultiTaskModel, build_model

CLASSES = Taxonomy(("background", "crack"), ("bolt", "nut", "crack"), ("good", "bad"))


def make_network(config: Config, taxonomy: Taxonomy = CLASSES, *, seed: int = 0) -> MultiTaskModel:
    torch.manual_seed(seed)
    return build_model(config.model, taxonomy.num_classes)


def make_taught_config(*sources: str, stage: int = 2, **teacher: Any) -> Config:  # noqa: ANN401 - of TeacherConfig
    """One stage has teachers."""
    stages = [one.model_dump(mode="json") for one in make_branches_config().stages]
    stages[stage]["teachers"] = [{"source": source, **teacher} for source in sources]
    return make_branches_config(stages=stages)


def make_evaluations(stages: int) -> list[dict[str, Any]]:
    """One for each stage, of all tasks learned by then."""
    tasks = list(Task)
    return [
        {"kind": "evaluation", "stage": str(tasks[index]), "metrics": {str(task): {} for task in tasks[: index + 1]}}
        for index in range(stages)
    ]


def write_origin(
    path: Path,
    config: Config | None = None,
    *,
    taxonomy: Taxonomy = CLASSES,
    stage: int = 3,
    seed: int = 7,
    **fields: Any,  # noqa: ANN401 - of Checkpoint
) -> MultiTaskModel:
    """Save a network that has done so many stages, and give it back."""
    config = config or make_branches_config()
    model = make_network(config, taxonomy, seed=seed)
    history = [{"kind": "epoch", "stage": "segmentation", "epoch": 1}, *make_evaluations(stage)]
    values: dict[str, Any] = {"stage": stage, "history": history} | fields
    save_checkpoint(
        Checkpoint(config.model_dump(mode="json"), "0123abc", model.state_dict(), taxonomy=taxonomy, **values), path
    )
    return model
