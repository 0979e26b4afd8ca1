"""The run: what each stage trains, what it protects, what is measured after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from service.engine.engine import Engine
from training.checkpoint import CHECKPOINT_NAME, Checkpoint, save_checkpoint
from training.config import Config, Task
from training.continual.anchoring import add_anchor
from training.continual.build import build_hooks
from training.data.datasets import DataSets, Measured, name_splits
from training.data.loaders import Batches, TaskDataset, count_batches, divide
from training.data.taxonomy import Taxonomy
from training.distributed import ALONE, Workers
from training.epochs import Epoch, Leg
from training.hooks.context import StageContext
from training.inference import build_engine, restore_model
from training.learner import Learner, StagePlan
from training.metrics.details import measure_details, write_details
from training.metrics.evaluation import evaluate_task, measure_ms_per_image
from training.models.multitask import MultiTaskModel
from training.objectives import make_objective
from training.options.polish import POLISH
from training.polish import Polish, judge
from training.progress import Progress
from training.starting.beginning import Beginning, begin
from training.starting.resuming import reopen
from training.stopping import UNWATCHED, StoppedError, Watch, Wish


@dataclass(frozen=True, slots=True)
class _Work:
    """What a run learns from and tells.

    Attributes:
        sets: the pictures, held-out ones in the place of the validation split.
        judged: the same, what judges the polish being what is `watched` of them.
        datasets: the training pictures by task, in the order of the stages.
        progress: is told how it goes.
        measure_every: epochs after which what is learned so far is measured within a stage too; 0: never.
        watch: says when to save and when to stop.
    """

    sets: DataSets
    judged: DataSets
    datasets: Mapping[Task, TaskDataset]
    progress: Progress
    measure_every: int
    watch: Watch


class Run:
    """One training run in one folder; `Run.start` begins it, `Run.resume` goes on with it, `finish` trains to the end.

    Attributes:
        checkpoint: what is saved after every epoch, and within one if asked; its weights are the network's own.
    """

    def __init__(
        self, checkpoint: Checkpoint, model: MultiTaskModel, out: Path, device: torch.device, workers: Workers = ALONE
    ) -> None:
        self.checkpoint = checkpoint
        self._config = checkpoint.parsed_config()
        self._model = model.to(device)
        self._out = out
        self._device = device
        self._workers = workers
        workers.check(self._config)

    @classmethod
    def start(
        cls,
        config: Config,
        out: Path,
        device: torch.device,
        *,
        taxonomy: Taxonomy,
        weights: Path | None = None,
        workers: Workers = ALONE,
    ) -> Run:
        """Begin a run of all stages, as `begin` prepares it.

        Raises:
            ConfigError, FileExistsError, WeightsError: see `begin` and `launch`.
        """
        return cls.launch(begin(config, taxonomy, weights=weights), out, device, workers=workers)

    @classmethod
    def launch(cls, beginning: Beginning, out: Path, device: torch.device, *, workers: Workers = ALONE) -> Run:
        """Begin a run that is prepared: save its first checkpoint.

        Raises:
            ConfigError: several processes cannot train this.
            FileExistsError: the folder holds a run already.
        """
        if (path := out / CHECKPOINT_NAME).exists():
            raise FileExistsError(f"{path} exists; go on with --resume, or choose another --out")
        run = cls(beginning.checkpoint, beginning.model, out, device, workers)
        workers.barrier()  # all have seen that there was no run
        out.mkdir(parents=True, exist_ok=True)
        run._save(run.checkpoint.stage, 0, None)
        return run

    @classmethod
    def resume(
        cls, out: Path, device: torch.device, *, moved: Mapping[str, str] | None = None, workers: Workers = ALONE
    ) -> Run:
        """Go on where a run was when its last checkpoint was saved; `moved` says where teachers lie now.

        Raises:
            CheckpointError, TeacherError: see `reopen`.
            ConfigError: several processes cannot train this.
        """
        checkpoint = reopen(out / CHECKPOINT_NAME, moved or {})
        workers.barrier()  # all have read it, and it may be written
        return cls(checkpoint, restore_model(checkpoint), out, device, workers)

    def finish(
        self,
        sets: DataSets,
        progress: Progress,
        *,
        measure_every: int = 0,
        on_stage: Callable[[Checkpoint], None] = lambda _: None,
        watch: Watch = UNWATCHED,
    ) -> None:
        """Train the stages that are left, and measure after each all tasks learned so far.

        What is learned is saved after each epoch, and between two steps when `watch` says so. A run that is asked to
        stop takes at least one step; what comes after a stage's last epoch is brought to its end first.

        Args:
            sets: the pictures.
            progress: is told how it goes.
            measure_every: epochs after which what is learned so far is measured within a stage too; 0: never.
            on_stage: is given the checkpoint after each stage, as it was saved.
            watch: says when to save within an epoch and when to stop.

        Raises:
            CheckpointError: the run was begun with other data.
            DataError: the data has nothing of a stage's task.
            StoppedError: it was asked to stop, and has saved where it is.
            TaxonomyError: the run was begun with other classes.
            TrainingDivergedError: see `training.learner`.
        """
        tasks, end = [stage.task for stage in self._config.stages], self.checkpoint.end
        sets, judged = divide(sets, self._config)
        self.checkpoint.require_data(sets)
        progress.restore(self.checkpoint.history)
        splits, options = {task: sets.split(task) for task in tasks}, (self._config, sets.taxonomy)
        datasets = {task: TaskDataset(split.train, *options, split.weights) for task, split in splits.items()}
        work = _Work(sets, judged, datasets, progress, measure_every, watch)
        for index in range(self.checkpoint.stage, min(end, len(tasks))):
            self._train_stage(index, work)
            self._close_stage(index, work)
            on_stage(self.checkpoint)
            wish = self._ask(watch)
            if wish.stops and self.checkpoint.stage < end:
                self._workers.barrier()  # as in `_after_batch`
                raise StoppedError(wish, f"after the stage {tasks[index]}")
        if self.checkpoint.stage < end:
            self._polish(work)

    def _context(self, index: int, work: _Work) -> StageContext:
        return StageContext(
            config=self._config,
            stage=self._config.stages[index],
            model=self._model,
            before=self.checkpoint.before,
            anchors=self.checkpoint.anchors,
            learned=self._tasks_up_to(index),
            datasets=work.datasets,
            device=self._device,
            taxonomy=self.checkpoint.taxonomy,
        )

    def _tasks_up_to(self, end: int) -> tuple[Task, ...]:
        return tuple(stage.task for stage in self._config.stages[:end])

    def _train_stage(self, index: int, work: _Work) -> None:
        stage = self._config.stages[index]
        self._remember_before()
        context, dataset = self._context(index, work), work.datasets[stage.task]
        objective = make_objective(self._config, stage.task, epochs=stage.epochs, dataset=dataset)
        plan = StagePlan(stage, objective, count_batches(len(dataset), stage.batch_size))
        learner = Learner(self._model, plan, lambda: build_hooks(context), device=self._device, workers=self._workers)

        def begin_epoch(rng: np.random.Generator) -> Batches:
            return Batches(dataset, self._config, batch_size=stage.batch_size, options=stage.augment, rng=rng)

        self._train(Leg(index, str(stage.task), stage.epochs, learner, begin_epoch), work)

    def _remember_before(self) -> None:
        if not self.checkpoint.learner:
            self.checkpoint.before = {name: value.cpu().clone() for name, value in self._model.state_dict().items()}

    def _train(self, leg: Leg, work: _Work) -> None:
        learner = leg.learner
        if self.checkpoint.learner:
            learner.load_state_dict(self.checkpoint.learner)
        for number in range(self.checkpoint.epoch, leg.epochs):
            epoch = Epoch(leg, number, seed=self._config.seed, device=self._device, workers=self._workers)
            if self.checkpoint.position:
                epoch.load_state_dict(self.checkpoint.position)
                work.progress.advance(leg.name, epoch.pictures)
            entry = epoch.train(partial(self._after_batch, epoch, work))
            # After the last epoch the stage's own evaluation says it.
            if work.measure_every and (number + 1) % work.measure_every == 0 and number + 1 < leg.epochs:
                started = time.perf_counter()
                measured = {task: work.sets.split(task).watched for task in self._tasks_up_to(leg.index + 1)}
                with learner.averaged():
                    entry |= {"metrics": self._measure(measured), "splits": name_splits(measured)}
                entry["measure_seconds"] = time.perf_counter() - started
            self._record(entry, work)
            self._workers.unify(self._model)
            self._save(leg.index, number + 1, learner.state_dict())
            work.watch.note_saved()
        learner.finish()

    def _after_batch(self, epoch: Epoch, work: _Work, pictures: int) -> None:
        leg = epoch.leg
        work.progress.advance(leg.name, pictures)
        wish = self._ask(work.watch)
        if wish:
            self._save(leg.index, epoch.number, leg.learner.state_dict(), epoch.state_dict())
            work.watch.note_saved()
        if wish.stops:
            self._workers.barrier()  # torchrun ends the others as soon as one has ended, and the first may be writing
            raise StoppedError(wish, f"in epoch {epoch.number + 1} of {leg.epochs} of {leg.name}")

    def _ask(self, watch: Watch) -> Wish:
        return Wish(self._workers.find_greatest(watch.look()))  # all processes have to do the same

    def _close_stage(self, index: int, work: _Work) -> None:
        stage, started = self._config.stages[index], time.perf_counter()
        self.checkpoint.anchors = add_anchor(self._context(index, work), self.checkpoint.anchors)
        fisher_seconds = time.perf_counter() - started
        evaluation = self._evaluate(index, str(stage.task), work) | {"fisher_seconds": fisher_seconds}
        self._record({**evaluation, "seconds": time.perf_counter() - started}, work)
        self._save(index + 1, 0, None)

    def _polish(self, work: _Work) -> None:
        index = len(self._config.stages)
        self._remember_before()
        polish = Polish(self._config, self._model, work.datasets, self._device, self._workers)
        self._train(Leg(index, POLISH, self._config.polish.epochs, polish.learner, polish.begin_epoch), work)
        started = time.perf_counter()
        measured = {task: work.judged.split(task).watched for task in work.datasets}
        tolerance, measure = self._config.polish.tolerance, partial(self._measure, measured)
        judged = judge(self._model, self.checkpoint.before, measure, tolerance) | {"splits": name_splits(measured)}
        self._record({"kind": "polish", "stage": POLISH, **judged, "seconds": time.perf_counter() - started}, work)
        if judged["kept"]:
            started = time.perf_counter()
            evaluation = self._evaluate(index, POLISH, work)
            self._record({**evaluation, "seconds": time.perf_counter() - started}, work)
        self._save(index + 1, 0, None)

    def _evaluate(self, index: int, stage: str, work: _Work) -> dict[str, Any]:
        engine, size = self._build_engine(), self._config.eval_batch_size
        measured = {task: work.sets.split(task).final for task in self._tasks_up_to(index + 1)}
        found = {str(task): measure_details(engine, task, one, batch_size=size) for task, (_, one) in measured.items()}
        if self._workers.is_main:
            write_details(self._out, stage, [details for _, details in found.values()])
        # As in `_measure`.
        metrics = self._workers.broadcast({task: metrics for task, (metrics, _) in found.items()})
        told = {"splits": name_splits(measured), "ms_per_image": measure_ms_per_image(engine)}
        return {"kind": "evaluation", "stage": stage, "metrics": metrics, **told}

    def _measure(self, measured: Mapping[Task, Measured[Any]]) -> dict[str, dict[str, float]]:
        engine, size = self._build_engine(), self._config.eval_batch_size
        found = {str(task): evaluate_task(engine, task, one, batch_size=size) for task, (_, one) in measured.items()}
        return self._workers.broadcast(found)  # every process measures; what is chosen by it must be the same for all

    def _build_engine(self) -> Engine:
        taxonomy, commit = self.checkpoint.taxonomy, self.checkpoint.git_commit
        return build_engine(self._model, self._config, taxonomy, self._device, git_commit=commit)

    def _record(self, entry: dict[str, Any], work: _Work) -> None:
        self.checkpoint.history.append(entry)
        work.progress.record(self.checkpoint.history)

    def _save(
        self, stage: int, epoch: int, learner: dict[str, Any] | None, position: dict[str, Any] | None = None
    ) -> None:
        self.checkpoint.stage, self.checkpoint.epoch = stage, epoch
        self.checkpoint.learner, self.checkpoint.position = learner, position
        self.checkpoint.model = self._model.state_dict()
        if self._workers.is_main:
            save_checkpoint(self.checkpoint, self._out / CHECKPOINT_NAME)
