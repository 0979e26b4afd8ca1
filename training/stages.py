"""The run: what each stage trains, what it protects, what is measured after it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from training.config import Config, StageConfig, Task
from training.continual.ewc import ewc_penalty, make_anchor
from training.continual.fisher import estimate_fisher
from training.data.datasets import MiniSets
from training.data.loaders import BatchTargets, TaskDataset, collate, count_batches, iterate_batches, split_of
from training.engine import LossFunction, Protection, build_optimizer, build_scheduler, train_one_epoch
from training.evaluation import evaluate_task, measure_ms_per_image
from training.inference import NUM_CLASSES, build_engine, restore_model
from training.losses import classification_loss, detection_loss, segmentation_loss
from training.models.heads import TaskLogits
from training.models.multitask import MultiTaskModel, build_model
from training.progress import RunProgress

CHECKPOINT_NAME = "checkpoint.pt"


def make_loss(config: Config, task: Task, *, epoch: int) -> LossFunction:
    """Choose the loss of a task; `epoch` counts from 0 within the task's stage."""

    def compute(logits: TaskLogits, targets: BatchTargets) -> dict[str, Tensor]:
        if isinstance(targets, tuple):
            return detection_loss(logits.detection, targets, config.detection_loss, epoch=epoch)
        if task is Task.SEGMENTATION:
            return segmentation_loss(logits.segmentation, targets)
        return classification_loss(logits.classification, targets)

    return compute


def find_git_commit() -> str:
    """Name the commit of this code; "-dirty" when tracked files differ from it, "unknown" outside its repository."""
    root = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - fixed words

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:  # installed inside somebody else's repository
            return "unknown"
        return git("describe", "--always", "--abbrev=12", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


class Run:
    """One training run in one folder; `Run.start` begins it, `Run.resume` goes on with it, `finish` trains to the end.

    Attributes:
        checkpoint: the state that is saved after every epoch; its weights are the network's own.
    """

    def __init__(self, checkpoint: Checkpoint, model: MultiTaskModel, out: Path, device: torch.device) -> None:
        self.checkpoint = checkpoint
        self._config = checkpoint.parsed_config()
        self._model = model.to(device)
        self._out = out
        self._device = device

    @classmethod
    def start(cls, config: Config, out: Path, device: torch.device, *, weights: Path | None = None) -> Run:
        """Begin a run: seed, build the network, save its first checkpoint.

        Raises:
            FileExistsError: the folder holds a run already.
            WeightsError: the backbone's weights cannot be had.
        """
        path = out / CHECKPOINT_NAME
        if path.exists():
            raise FileExistsError(f"{path} exists; go on with --resume, or choose another --out")
        torch.manual_seed(config.seed)
        model = build_model(config.model, NUM_CLASSES, weights=weights)
        out.mkdir(parents=True, exist_ok=True)
        run = cls(Checkpoint(config.model_dump(mode="json"), find_git_commit(), model.state_dict()), model, out, device)
        save_checkpoint(run.checkpoint, path)
        return run

    @classmethod
    def resume(cls, out: Path, device: torch.device) -> Run:
        """Go on where a run was when its last checkpoint was saved.

        Raises:
            CheckpointError: there is none.
        """
        checkpoint = load_checkpoint(out / CHECKPOINT_NAME)
        return cls(checkpoint, restore_model(checkpoint), out, device)

    def finish(self, sets: MiniSets, progress: RunProgress) -> None:
        """Train the stages that are left, and measure after each all tasks learned so far.

        Raises:
            CheckpointError: the run was begun with other data.
            TrainingDivergedError: see `training.engine`.
        """
        pictures = {str(stage.task): len(split_of(sets, stage.task).train) for stage in self._config.stages}
        if self.checkpoint.pictures not in ({}, pictures):
            raise CheckpointError(
                f"the run was begun with {self.checkpoint.pictures} training pictures, the data has {pictures}; "
                "go on with the same data, or begin a new run"
            )
        self.checkpoint.pictures = pictures
        progress.restore(self.checkpoint.history)
        for index in range(self.checkpoint.stage, len(self._config.stages)):
            stage = self._config.stages[index]
            dataset = TaskDataset(split_of(sets, stage.task).train, self._config)
            self._train_stage(index, stage, dataset, progress)
            self._close_stage(index, stage, dataset, sets, progress)

    def _train_stage(self, index: int, stage: StageConfig, dataset: TaskDataset, progress: RunProgress) -> None:
        optimizer = build_optimizer(self._model, stage)
        steps = stage.epochs * count_batches(len(dataset), stage.batch_size)
        scheduler = build_scheduler(optimizer, steps=steps, warmup_fraction=stage.warmup_fraction)
        if self.checkpoint.optimizer and self.checkpoint.scheduler:
            optimizer.load_state_dict(self.checkpoint.optimizer)
            scheduler.load_state_dict(self.checkpoint.scheduler)
        for epoch in range(self.checkpoint.epoch, stage.epochs):
            # A generator per epoch: a resumed run draws what the uninterrupted one would have drawn.
            rng = np.random.default_rng([self._config.seed, index, epoch])
            started = time.perf_counter()
            losses = train_one_epoch(
                self._model,
                iterate_batches(dataset, self._config, batch_size=stage.batch_size, mirror=stage.flip, rng=rng),
                make_loss(self._config, stage.task, epoch=epoch),
                optimizer,
                scheduler,
                device=self._device,
                clip_norm=stage.clip_norm,
                protections=list(self._protections(stage)),
                on_batch=partial(progress.advance, stage.task),
            )
            self._record(
                {
                    "kind": "epoch",
                    "stage": str(stage.task),
                    "epoch": epoch + 1,
                    "losses": losses,
                    "seconds": time.perf_counter() - started,
                },
                progress,
            )
            self._save(index, epoch + 1, optimizer.state_dict(), scheduler.state_dict())

    def _protections(self, stage: StageConfig) -> Iterator[Protection]:
        shared = self._model.shared_parameters()
        for task, strength in stage.ewc_lambda.items():
            anchor = self.checkpoint.anchors[str(task)]
            yield Protection(str(task), strength, partial(ewc_penalty, shared, anchor.to(self._device)))

    def _close_stage(
        self, index: int, stage: StageConfig, dataset: TaskDataset, sets: MiniSets, progress: RunProgress
    ) -> None:
        started = time.perf_counter()
        if any(stage.task in later.ewc_lambda for later in self._config.stages[index + 1 :]):
            shared = self._model.shared_parameters()
            importance = estimate_fisher(self._model, shared, self._sample_losses(stage, dataset))
            self.checkpoint.anchors[str(stage.task)] = make_anchor(shared, importance)
        fisher_seconds = time.perf_counter() - started
        engine = build_engine(self._model, self._config, self._device, git_commit=self.checkpoint.git_commit)
        learned = [earlier.task for earlier in self._config.stages[: index + 1]]
        metrics = {
            str(task): evaluate_task(engine, task, split_of(sets, task).val, batch_size=self._config.eval_batch_size)
            for task in learned
        }
        self._record(
            {
                "kind": "evaluation",
                "stage": str(stage.task),
                "metrics": metrics,
                "ms_per_image": measure_ms_per_image(engine),
                "fisher_seconds": fisher_seconds,
                "seconds": time.perf_counter() - started,
            },
            progress,
        )
        self._save(index + 1, 0, None, None)

    def _sample_losses(self, stage: StageConfig, dataset: TaskDataset) -> Iterator[Callable[[], Tensor]]:
        compute_loss = make_loss(self._config, stage.task, epoch=stage.epochs - 1)  # the one that the stage ended with

        def loss_of(index: int) -> Tensor:
            batch = collate([dataset.get(index, mirrored=False)], self._config)
            targets = batch.targets.to(self._device) if isinstance(batch.targets, Tensor) else batch.targets
            return torch.stack(list(compute_loss(self._model(batch.images.to(self._device)), targets).values())).sum()

        return (partial(loss_of, index) for index in range(len(dataset)))

    def _record(self, entry: dict[str, Any], progress: RunProgress) -> None:
        self.checkpoint.history.append(entry)
        progress.record(self.checkpoint.history)

    def _save(self, stage: int, epoch: int, optimizer: dict[str, Any] | None, scheduler: dict[str, Any] | None) -> None:
        self.checkpoint.stage, self.checkpoint.epoch = stage, epoch
        self.checkpoint.optimizer, self.checkpoint.scheduler = optimizer, scheduler
        self.checkpoint.model = self._model.state_dict()
        save_checkpoint(self.checkpoint, self._out / CHECKPOINT_NAME)
