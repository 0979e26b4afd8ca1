"""A run as its folder tells it: all that the report is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoint import CHECKPOINT_NAME, CheckpointError, load_checkpoint
from training.config import Config, Task
from training.data.record import DataRecord, read_record
from training.data.taxonomy import Taxonomy
from training.environment import Environment, read_environments
from training.inference import restore_model
from training.metrics.details import Details, read_details


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run was, and what came of it.

    Attributes:
        config: of the run.
        taxonomy: its classes.
        git_commit: of the code that began it.
        is_finished: all stages that it trains are done.
        parameters: of the network.
        pictures: training pictures by task.
        history: one entry per epoch, evaluation and verdict on the polish, in order.
        details: by stage that was measured, then by task; empty where the folder holds none.
        data: what it learned from; None where the folder does not say.
        environments: what it was begun and gone on with.
    """

    config: Config
    taxonomy: Taxonomy
    git_commit: str
    is_finished: bool
    parameters: int
    pictures: Mapping[str, int]
    history: Sequence[Mapping[str, Any]]
    details: Mapping[str, Mapping[Task, Details]]
    data: DataRecord | None
    environments: Sequence[Environment]

    @property
    def epochs(self) -> list[Mapping[str, Any]]:
        """The history's epochs."""
        return [entry for entry in self.history if entry["kind"] == "epoch"]

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """The history's evaluations, in the order of the stages; at least one."""
        return [entry for entry in self.history if entry["kind"] == "evaluation"]

    @property
    def stages(self) -> list[str]:
        """All stages of the history, in order; the polish is one."""
        return list(dict.fromkeys(entry["stage"] for entry in self.history))

    @property
    def tasks(self) -> list[Task]:
        """The tasks learned and measured, in the order learned."""
        return [Task(name) for name in self.evaluations[-1]["metrics"]]

    def own_details(self, task: Task) -> Details | None:
        """Of a task after its own stage."""
        return self.details.get(str(task), {}).get(task)

    def end_details(self, task: Task) -> Details | None:
        """Of a task after the last stage that was measured."""
        return self.details.get(self.evaluations[-1]["stage"], {}).get(task)


def load_run_record(folder: Path) -> RunRecord:
    """Read a run's folder.

    Raises:
        CheckpointError: it holds no checkpoint, or no stage is done yet.
        DetailsError, RecordError: a file in it is of another version.
    """
    checkpoint = load_checkpoint(folder / CHECKPOINT_NAME)
    config = checkpoint.parsed_config()
    measured = [entry["stage"] for entry in checkpoint.evaluations]
    if not measured:
        raise CheckpointError(f"{folder} has finished no stage yet, so there is nothing to report")
    return RunRecord(
        config=config,
        taxonomy=checkpoint.taxonomy,
        git_commit=checkpoint.git_commit,
        is_finished=checkpoint.stage >= checkpoint.end,
        parameters=sum(parameter.numel() for parameter in restore_model(checkpoint).parameters()),
        pictures=checkpoint.pictures,
        history=checkpoint.history,
        details={stage: read_details(folder, stage) for stage in measured},
        data=read_record(folder),
        environments=read_environments(folder),
    )
