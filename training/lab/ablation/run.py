"""A table of experiments trained row by row, unattended; every result is a line in a file."""

from __future__ import annotations

import importlib.util
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from rich.console import Console

from training.checkpoint import CHECKPOINT_NAME, Checkpoint, save_checkpoint
from training.config import Task
from training.data.datasets import DataError, DataSets
from training.data.loaders import hold_out
from training.environment import find_git_commit
from training.inference import restore_model
from training.lab.ablation.records import Record, Results, append_record, choose_best, find_results, read_records
from training.lab.ablation.shelf import Shelf
from training.lab.ablation.table import Experiment
from training.lab.report.forgetting import compute_drops
from training.models.backbone import WeightsError
from training.progress import RunProgress
from training.stages import Run

Train: TypeAlias = Callable[[Experiment, int, Path], Results]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run, and where.

    Attributes:
        experiments: the table, the base first.
        path: of the file of results; made if there is none.
        seeds: of all rows, the first one first.
        best: if given, only the base and so many of the best rows by the first seed are trained with the others.
        work: a folder a run lies here while it is trained; what an interrupted one has left is removed.
        keep: leave these folders where they are.
        machine: what the runs are trained on, for the record.
    """

    experiments: Sequence[Experiment]
    path: Path
    seeds: Sequence[int]
    best: int | None
    work: Path
    keep: bool
    machine: str

    def rows(self, seed: int) -> list[Experiment]:
        """The rows that are wanted with a seed; which are best is decided when the first seed is done."""
        if self.best is None or seed == self.seeds[0]:
            return list(self.experiments)
        records = read_records(self.path)
        best = choose_best(self.experiments, records, seed=self.seeds[0], count=self.best)
        return [self.experiments[0], *best]


def run_table(plan: Plan, train: Train, tell: Callable[[str], None]) -> None:
    """Train every row that has no result yet, and add a line for each; one that fails does not stop the others.

    Args:
        plan: the rows and seeds.
        train: trains one row with a seed in a folder that does not exist yet.
        tell: is given a line before and after each run.

    Raises:
        AblationError: the file of results cannot be read, or the base failed and the best rows are asked for.
        DataError, WeightsError, OSError: what no row can do without is missing.
    """
    git_commit = find_git_commit()
    for seed in plan.seeds:
        rows = plan.rows(seed)
        for number, one in enumerate(rows, start=1):
            if seed in find_results(read_records(plan.path), one):
                continue
            label = f"{one.name}, seed {seed} ({number} of {len(rows)})"
            if missing := [name for name in one.needs if importlib.util.find_spec(name) is None]:
                tell(f"{label}: left out, it needs {', '.join(missing)}")
                continue
            tell(f"{label}: {one.sentence}")
            out = plan.work / f"{one.name}-{seed}"
            if out.exists():
                shutil.rmtree(out)
            outcome = _try(train, one, seed, out)
            record = Record(
                name=one.name,
                direction=one.direction,
                seed=seed,
                digest=one.digest,
                git_commit=git_commit,
                machine=plan.machine,
                results=outcome if isinstance(outcome, Results) else None,
                error=outcome if isinstance(outcome, str) else None,
            )
            append_record(plan.path, record)
            tell(f"{label}: failed: {outcome}" if isinstance(outcome, str) else f"{label}: {outcome.seconds:.0f} s")
            if out.exists() and not plan.keep:
                shutil.rmtree(out)


def _try(train: Train, experiment: Experiment, seed: int, out: Path) -> Results | str:
    """Give the results, or a sentence about what went wrong."""
    try:
        return train(experiment, seed, out)
    except (DataError, WeightsError, OSError):
        raise  # the next row would meet the same
    except Exception as error:  # noqa: BLE001 - nobody is there to ask: whatever a row does, the others go on
        return " ".join(f"{type(error).__name__}: {error}".split())


@dataclass(frozen=True, slots=True)
class RowTrainer:
    """Trains one row in a folder of its own, and measures it on the pictures that its config holds out.

    Attributes:
        weights: of the backbone; None downloads them.
        shelf: stages that rows have in common.
    """

    sets: DataSets
    device: torch.device
    weights: Path | None
    console: Console
    shelf: Shelf

    def __call__(self, experiment: Experiment, seed: int, out: Path) -> Results:
        """Train.

        Raises:
            Exception: whatever `Run.start` and `Run.finish` raise.
        """
        config = experiment.config.model_copy(update={"seed": seed})
        if begun := self.shelf.take(config):
            out.mkdir(parents=True)
            save_checkpoint(begun, out / CHECKPOINT_NAME)
            run = Run.resume(out, self.device)
        else:
            run = Run.start(config, out, self.device, taxonomy=self.sets.taxonomy, weights=self.weights)
        held = {stage.task: hold_out(self.sets, config.holdout).split(stage.task) for stage in config.stages}
        pictures = {task: len(split.train) for task, split in held.items()}
        with RunProgress(config, pictures, out, self.console) as progress:
            run.finish(self.sets, progress, on_stage=self.shelf.keep)
        return _gather(run.checkpoint, {task: len(split.val) for task, split in held.items()})


def _gather(checkpoint: Checkpoint, held_out: dict[Task, int]) -> Results:
    evaluations = checkpoint.evaluations
    own: dict[str, dict[str, float]] = {}
    for entry in evaluations:
        for task, metrics in entry["metrics"].items():
            own.setdefault(task, metrics)  # a task is measured from its own stage on
    return Results(
        own=_keep_defined(own),
        end=_keep_defined(evaluations[-1]["metrics"]),
        drops={Task(task): rows[-1][2] for task, rows in compute_drops(evaluations).items() if len(rows) > 1},
        held_out=held_out,
        seconds=sum(entry["seconds"] for entry in checkpoint.history),
        parameters=sum(parameter.numel() for parameter in restore_model(checkpoint).parameters()),
        ms_per_image=evaluations[-1]["ms_per_image"],
    )


def _keep_defined(metrics: dict[str, dict[str, float]]) -> dict[Task, dict[str, float]]:
    # Few pictures may leave a metric without a value, and JSON has no word for that.
    return {
        Task(task): {name: value for name, value in values.items() if math.isfinite(value)}
        for task, values in metrics.items()
    }
