"""A run before its first step: the network, and the checkpoint that says so."""

from __future__ import annotations

from pathlib import Path

import torch

from training.checkpoint import Checkpoint, choose_classes
from training.config import Config
from training.data.taxonomy import Taxonomy
from training.environment import find_git_commit
from training.models.multitask import MultiTaskModel, build_model


def begin(config: Config, taxonomy: Taxonomy, *, weights: Path | None = None) -> tuple[Checkpoint, MultiTaskModel]:
    """Seed, and build the network with a head for each task of the config; nothing is written.

    Args:
        config: of the run.
        taxonomy: classes of the data.
        weights: a state dict with the backbone's ImageNet weights; None downloads them.

    Returns:
        The run's first checkpoint, and the network whose weights it holds.

    Raises:
        ConfigError: a stage learns a task that has no classes.
        WeightsError: the backbone's weights cannot be had.
    """
    taxonomy = choose_classes(config, taxonomy)
    torch.manual_seed(config.seed)
    model = build_model(config.model, taxonomy.num_classes, weights=weights)
    values, commit = config.model_dump(mode="json"), find_git_commit()
    return Checkpoint(values, commit, model.state_dict(), taxonomy=taxonomy), model
