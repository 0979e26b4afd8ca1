"""A training run on disk: everything needed to go on or to export, in one file that is never half written."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.config import Config, ConfigError, Task
from training.data.datasets import DataSets
from training.data.taxonomy import MINI, Taxonomy, require_same_classes
from training.files import open_whole
from training.hooks.anchor import Anchor
from training.options.polish import POLISH

CHECKPOINT_NAME = "checkpoint.pt"  # in the folder of a run


class CheckpointError(ValueError):
    """A checkpoint is missing, is none, or is of another version."""


@dataclass(slots=True)
class Checkpoint:
    """The state of a run between two steps.

    Attributes:
        config: as `Config.model_dump(mode="json")` gives it.
        stage: index of the stage that is under way, the polish counted as one more; `Config.num_stages` when the run
            is done.
        epoch: epochs of that stage that are done.
        learner: state of that stage's learner, None between stages.
        position: state of the epoch that is under way (`training.epochs`), None between epochs.
        before: the network's weights when that stage began.
        anchors: by task, in the order learned.
        history: one entry per epoch, evaluation or verdict on the polish, as written to metrics.jsonl.
        git_commit: of the code that began the run.
        taxonomy: the classes of what the network has heads for.
        pictures: training pictures by task; a run goes on with the data it was begun with.
        begins: index of the stage that the run began with; what it started from has learned the tasks of earlier ones.
        ends: index of the stage before which it ends; None: it goes on to the end of its config.
        origin_sha256: of the file whose weights it started from; empty where there was none.
        teachers: SHA-256 of each by its source, as they were when the run began.
        weights_only: weights in half precision and evaluations alone: enough to start from, not to go on.
    """

    config: dict[str, Any]
    git_commit: str
    model: dict[str, Tensor]
    stage: int = 0
    epoch: int = 0
    learner: dict[str, Any] | None = None
    position: dict[str, Any] | None = None
    before: dict[str, Tensor] = field(default_factory=dict)
    anchors: dict[str, Anchor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, int] = field(default_factory=dict)
    begins: int = 0
    ends: int | None = None
    origin_sha256: str = ""
    teachers: dict[str, str] = field(default_factory=dict)
    weights_only: bool = False
    taxonomy: Taxonomy = field(kw_only=True)

    @property
    def end(self) -> int:
        """Index of the stage before which the run ends, the polish counted as one more."""
        return self.parsed_config().num_stages if self.ends is None else self.ends

    @property
    def own_stages(self) -> list[str]:
        """The names of the stages that the run trains, the polish as one."""
        config = self.parsed_config()
        return [*(str(stage.task) for stage in config.stages), POLISH][self.begins : self.end]

    @property
    def learned(self) -> tuple[Task, ...]:
        """The tasks whose stages are done, in their order."""
        return tuple(stage.task for stage in self.parsed_config().stages[: self.stage])

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The history's evaluations, in the order of the stages; the polish's last, if it was kept."""
        return [entry for entry in self.history if entry["kind"] == "evaluation"]

    def require_data(self, sets: DataSets) -> None:
        """Take note of the data that a run learns from, or see that it is still the same.

        Raises:
            CheckpointError: the run was begun with another number of pictures.
            DataError: the data has nothing of a stage's task.
            TaxonomyError: the run was begun with other classes.
        """
        tasks = [stage.task for stage in self.parsed_config().stages]
        advice = "go on with the same data, or begin a new run"
        pictures = {str(task): len(sets.split(task).train) for task in tasks}
        run = "the run"
        require_same_classes(self.taxonomy, sets.taxonomy, tasks, owner=run, mine=run, advice=advice, pairs=True)
        if self.pictures not in ({}, pictures):
            raise CheckpointError(
                f"the run was begun with {self.pictures} training pictures, the data has {pictures}; {advice}"
            )
        self.pictures = pictures

    def parsed_config(self) -> Config:
        """Give the config back as its type."""
        return Config.model_validate(self.config)


def choose_classes(config: Config, taxonomy: Taxonomy) -> Taxonomy:
    """Give the classes of the tasks that a run's stages learn.

    Raises:
        ConfigError: a stage learns a task that has none.
    """
    tasks = [stage.task for stage in config.stages]
    if lacking := [task for task in tasks if task not in taxonomy.tasks]:
        raise ConfigError(f"preset {config.preset} has a stage for {lacking[0]}, of which the data has no classes")
    return taxonomy.keep(tasks)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; a kill leaves the old file or the new one, whole."""
    values = {entry.name: getattr(checkpoint, entry.name) for entry in fields(checkpoint)}
    values["anchors"] = {task: asdict(anchor) for task, anchor in checkpoint.anchors.items()}
    values["taxonomy"] = checkpoint.taxonomy.to_dict()
    with open_whole(path) as file:
        torch.save(values, file)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; tensors and plain values only, code in the file is refused.

    Raises:
        CheckpointError: no such file, or not a checkpoint of this version.
    """
    try:
        return parse_checkpoint(load_values(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; train first with `unihead-train run`") from error
    except Exception as error:
        raise CheckpointError(f"{path} is not a checkpoint that this version wrote: {error}") from error


def load_values(path: Path) -> Any:  # noqa: ANN401 - whatever somebody has saved
    """Read what torch has saved: tensors and plain values; code in the file is refused.

    Raises:
        Exception: of many kinds, where the file is none of torch's.
    """
    return torch.load(path, weights_only=True, map_location="cpu")  # noqa: TID251 - the one place it is allowed


def parse_checkpoint(values: dict[str, Any]) -> Checkpoint:
    """Make a checkpoint of the values that its file holds.

    Raises:
        Exception: of many kinds, where they are of something else or of another version.
    """
    anchors = {task: Anchor(**anchor) for task, anchor in values["anchors"].items()}
    # A file from before there were others than the mini sets' classes does not name them.
    taxonomy = Taxonomy.from_dict(values["taxonomy"]) if "taxonomy" in values else MINI
    checkpoint = Checkpoint(**{**values, "anchors": anchors, "taxonomy": taxonomy})
    checkpoint.parsed_config()
    return checkpoint
