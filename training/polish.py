"""Joint polish: all tasks learn together for a while, and what comes of it is kept only if no task loses by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from training.config import Config, StageConfig, Task
from training.data.batches import Batch, move_batch
from training.data.feed.ahead import Ahead
from training.data.feed.dataset import TaskDataset
from training.data.loaders import count_batches, draw_batches
from training.distributed import ALONE, Workers
from training.hooks.hook import Hook, Step
from training.hooks.passes import mixed_precision
from training.learner import Learner, StagePlan
from training.metrics.evaluation import PRIMARY_METRIC
from training.models.multitask import MultiTaskModel
from training.objectives import Objective, make_final_objective
from training.options.stage import Part

Metrics = Mapping[str, Mapping[str, float]]


@dataclass(eq=False)
class OtherTasks(Hook):
    """In every step a batch of each other task, whose losses are added.

    Attributes:
        model: that learns.
        objectives: of the other tasks.
        device: of the network.
        workers: the processes that train it; the shares of a short last batch are taken for those of a full one.
        batches: by task, without end; set anew for every epoch.
    """

    name = "others"

    model: MultiTaskModel
    objectives: Mapping[Task, Objective]
    device: torch.device
    workers: Workers
    batches: Mapping[Task, Iterator[Batch]] = field(default_factory=dict)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The losses of a new batch of each."""
        del step
        parts: dict[str, Tensor] = {}
        for task, objective in self.objectives.items():
            batch = move_batch(self.workers.shard(next(self.batches[task])), self.device)
            with mixed_precision(self.device):
                logits = self.model.head.answer(self.model.extract(batch.images), task)
            parts |= objective(logits, batch, 0)
        return parts


class JointBatches(Iterator[Batch]):
    """The leading task's batches; its state is that of the other tasks' too."""

    def __init__(self, lead: Ahead, others: Mapping[Task, Ahead]) -> None:
        self._lead = lead
        self._others = others

    def __next__(self) -> Batch:
        """Make the leading task's next batch."""
        return next(self._lead)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""
        others = {str(task): batches.state_dict() for task, batches in self._others.items()}
        return {"lead": self._lead.state_dict(), "others": others}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self._lead.load_state_dict(state["lead"])
        for task, batches in self._others.items():
            batches.load_state_dict(state["others"][str(task)])

    def close(self) -> None:
        """End the threads that make batches."""
        for batches in (self._lead, *self._others.values()):
            batches.close()


class Polish:
    """What the run needs to train all tasks together as it trains a stage.

    The task with most pictures leads: an epoch goes through its pictures once, while the others begin again as often as
    they must. One step is a batch of each task, their losses summed; all parts of the network learn, all batch-norm
    keeps still. The losses are those that the tasks' stages ended with.

    Attributes:
        learner: of the leading task, with the others as a hook.
    """

    def __init__(
        self,
        config: Config,
        model: MultiTaskModel,
        datasets: Mapping[Task, TaskDataset],
        device: torch.device,
        workers: Workers = ALONE,
    ) -> None:
        """Prepare the polish; the network's own weights are where it begins."""
        self._config = config
        self._datasets = datasets
        self._lead = max(datasets, key=lambda task: len(datasets[task]))
        objectives = {stage.task: _make_final_objective(config, stage, datasets[stage.task]) for stage in config.stages}
        lead_objective = objectives.pop(self._lead)
        self._others = OtherTasks(model, objectives, device, workers)
        options = config.polish
        stage = StageConfig(
            task=self._lead,
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            lr_factors=dict.fromkeys(get_args(Part), 1.0),
            ema=options.ema,
        )
        steps = count_batches(len(datasets[self._lead]), options.batch_size)
        plan = StagePlan(stage, lead_objective, steps, still_norms=tuple(model.parts()))
        self.learner = Learner(model, plan, lambda: [self._others], device=device, workers=workers)

    def begin_epoch(self, rng: np.random.Generator) -> JointBatches:
        """Give the leading task's batches, and let the others begin."""
        lead, *others = rng.spawn(len(self._datasets))
        tasks = [task for task in self._datasets if task is not self._lead]
        batches = {
            task: self._draw_batches(task, other, endless=True) for task, other in zip(tasks, others, strict=True)
        }
        self._others.batches = batches
        return JointBatches(self._draw_batches(self._lead, lead), batches)

    def _draw_batches(self, task: Task, rng: np.random.Generator, *, endless: bool = False) -> Ahead:
        (augment,) = (stage.augment for stage in self._config.stages if stage.task is task)
        return draw_batches(
            self._datasets[task],
            self._config,
            batch_size=self._config.polish.batch_size,
            options=augment,
            rng=rng,
            endless=endless,
        )


def _make_final_objective(config: Config, stage: StageConfig, dataset: TaskDataset) -> Objective:
    objective = make_final_objective(config, stage, dataset)
    return lambda logits, batch, _: {f"{stage.task}/{name}": part for name, part in objective(logits, batch).items()}


def judge(
    model: MultiTaskModel, before: Mapping[str, Tensor], measure: Callable[[], Metrics], tolerance: float
) -> dict[str, Any]:
    """Keep the polished weights if no task has lost more than `tolerance` of its primary metric; else restore.

    Args:
        model: with the polished weights; with those that are kept when this is done.
        before: state of the network before the polish.
        measure: all metrics by task, of the network as it is.
        tolerance: 0..1.

    Returns:
        "kept", and the metrics "before" and "after".
    """
    polished = {name: value.clone() for name, value in model.state_dict().items()}
    after = measure()
    model.load_state_dict(before)
    earlier = measure()
    primaries = {task: PRIMARY_METRIC[Task(task)] for task in earlier}
    kept = all(after[task][name] >= earlier[task][name] - tolerance for task, name in primaries.items())
    if kept:
        model.load_state_dict(polished)
    return {"kept": kept, "before": earlier, "after": after}
