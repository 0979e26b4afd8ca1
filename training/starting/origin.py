"""The file that a run starts from: a checkpoint of ours, whole or weights alone, or anybody's file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.checkpoint import CHECKPOINT_NAME, Checkpoint, CheckpointError, load_values, parse_checkpoint
from training.files import hash_file

# Under one of these others keep the weights, beside what else they save.
_WRAPPERS = ("state_dict", "model")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run starts from.

    Attributes:
        path: of the file.
        sha256: of the file.
        state: tensors by name; the average of a stage that is under way, where it keeps one.
        checkpoint: the file, if it is one of ours and so says what it has learned and which classes.
    """

    path: Path
    sha256: str
    state: Mapping[str, Tensor]
    checkpoint: Checkpoint | None


def open_origin(path: Path) -> Origin:
    """Read a file of weights, or a checkpoint; of a run's folder its checkpoint.

    Raises:
        CheckpointError: there is no such file, or it holds no weights by name.
    """
    path = find_checkpoint(path)
    try:
        values = load_values(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; wanted a checkpoint or a file of weights") from error
    except Exception as error:
        raise CheckpointError(f"{path} holds no weights: {error}") from error
    if isinstance(values, dict) and {"config", "model", "git_commit"} <= values.keys():
        try:
            checkpoint = parse_checkpoint(values)
        except Exception as error:
            raise CheckpointError(f"{path} is not a checkpoint that this version wrote: {error}") from error
        return Origin(path, hash_file(path), choose_weights(checkpoint), checkpoint)
    state = _unwrap(values)
    if not state:
        raise CheckpointError(f"{path} holds no weights; wanted a checkpoint, or tensors by their names")
    return Origin(path, hash_file(path), state, None)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint of a run's folder; any other path as it is."""
    return path / CHECKPOINT_NAME if path.is_dir() else path


def choose_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights that would be measured now: the average of a stage that is under way, where it keeps one."""
    average = (checkpoint.learner or {}).get("average")
    return checkpoint.model if average is None else average["average"]


def keep_weights(checkpoint: Checkpoint) -> Checkpoint:
    """What another run can start from, and what can be measured and exported: a quarter of a checkpoint or less.

    Weights are in half precision, save where that cannot hold them. Gone are the optimiser, what holds on to earlier
    tasks by elastic weight consolidation, and of the history all but the evaluations.
    """
    return replace(
        checkpoint,
        model={name: _halve(value) for name, value in choose_weights(checkpoint).items()},
        epoch=0,
        learner=None,
        position=None,
        before={},
        anchors={},
        history=checkpoint.evaluations,
        weights_only=True,
    )


def _halve(value: Tensor) -> Tensor:
    half = value.half() if value.is_floating_point() else value
    return half if torch.isfinite(half).all() else value


def _unwrap(values: Any) -> dict[str, Tensor]:  # noqa: ANN401 - whatever somebody has saved
    """The tensors of a state dict, or of one that lies in a larger one; empty if there are none."""
    if not isinstance(values, dict):
        return {}
    inner = next((values[name] for name in _WRAPPERS if isinstance(values.get(name), dict)), values)
    return {name: value for name, value in inner.items() if isinstance(name, str) and isinstance(value, Tensor)}
