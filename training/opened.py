"""A checkpoint or an ONNX file, opened so that it can be measured."""

from __future__ import annotations

from pathlib import Path

import torch

from service.engine import Engine, load_engine
from service.errors import ContractError
from training.checkpoint import load_checkpoint
from training.config import Task
from training.data.classes import CLASSES
from training.inference import build_engine, restore_model


def open_checkpoint(path: Path, device: torch.device) -> tuple[Engine, list[Task], int]:
    """Load a checkpoint: engine, tasks learned, pictures per forward pass.

    Raises:
        CheckpointError: there is none.
    """
    loaded = load_checkpoint(path)
    config = loaded.parsed_config()
    engine = build_engine(restore_model(loaded).to(device), config, device, git_commit=loaded.git_commit)
    return engine, [stage.task for stage in config.stages[: loaded.stage]], config.eval_batch_size


def open_model(path: Path) -> tuple[Engine, list[Task], int]:
    """Load an ONNX file, which takes one picture per forward pass, as most that the service asks of it.

    Raises:
        ContractError: it cannot be read, or names other classes than the data has.
    """
    engine = load_engine(path)
    for task in Task:
        if getattr(engine.contract, f"{task}_classes") != CLASSES[task]:
            raise ContractError(f"{path}: its {task} classes are not those of the data; export it again")
    return engine, list(Task), 1
