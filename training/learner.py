"""One stage's learning: the network, what moves it, and what is kept of it between epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from training.config import StageConfig
from training.continual.averaging import WeightAverage
from training.continual.balancing import build_balancer
from training.data.batches import Batch, move_batch
from training.distributed import ALONE, Workers
from training.hooks.hook import Hook, Step
from training.hooks.passes import mixed_precision
from training.models.multitask import MultiTaskModel
from training.objectives import Objective
from training.options.stage import Part


class TrainingDivergedError(RuntimeError):
    """The loss or its gradient is no longer a number."""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a stage asks of the network.

    Attributes:
        config: of the stage.
        objective: logits of the stage's task, targets and epoch (from 0) to named parts, which are summed.
        steps_per_epoch: batches an epoch.
        still_norms: see `build_optimizer`.
    """

    config: StageConfig
    objective: Objective
    steps_per_epoch: int
    still_norms: Collection[Part] = ()


@dataclass(slots=True)
class Tally:
    """What an epoch has come to so far.

    Attributes:
        steps: that are done.
        pictures: that were learned from.
        sums: of each part of the loss, over the pictures; in this process.
    """

    steps: int = 0
    pictures: int = 0
    sums: dict[str, float] = field(default_factory=dict)


def build_optimizer(model: MultiTaskModel, config: StageConfig, *, still_norms: Collection[Part] = ()) -> AdamW:
    """Build a fresh AdamW: no moments of an earlier stage, no decay that would move other tasks' weights.

    Each part of the network learns at a rate of its own, and not at all where its factor is 0: then its gradients are
    off and its batch-norm keeps its statistics. Batch-norm, biases and prediction rows never decay: AdamW shrinks
    weights whose gradient is zero, and the rows of tasks that are not being learned must stay as they are.

    Args:
        model: changed in place.
        config: of the stage.
        still_norms: parts whose batch-norm does not learn though they do, besides those that the config names.
    """
    shared: tuple[Part, ...] = ("backbone", "neck", "stem") if config.freeze_batch_norm else ()
    model.begin_stage(
        frozen=[part for part in model.parts() if not config.lr_factor(part)], still_norms=(*shared, *still_norms)
    )
    groups = []
    for part, module in model.parts().items():
        named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        decaying = [parameter for name, parameter in named if parameter.ndim > 1 and "predict" not in name]
        others = [parameter for name, parameter in named if parameter.ndim <= 1 or "predict" in name]
        for parameters, decay in ((decaying, config.weight_decay), (others, 0.0)):
            if parameters:
                rate = config.learning_rate * config.lr_factor(part)
                groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
    return AdamW(groups)


def build_scheduler(optimizer: AdamW, *, steps: int, warmup_fraction: float) -> LambdaLR:
    """Build a linear warm-up, then a cosine to zero, over `steps` optimiser steps."""
    warmup = max(1, round(steps * warmup_fraction))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return LambdaLR(optimizer, factor)


class Learner:
    """Everything that moves in one stage; `state_dict` holds it between epochs.

    The network's own weights are kept by the caller. At the end of the stage `finish` puts the averaged weights in
    their place, where the stage averages, and gives each hook its last word.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        plan: StagePlan,
        make_hooks: Callable[[], Sequence[Hook]],
        *,
        device: torch.device,
        workers: Workers = ALONE,
    ) -> None:
        """Prepare the stage.

        Args:
            model: changed in place; parts that do not learn in this stage are frozen.
            plan: of the stage.
            make_hooks: makes the methods of not forgetting and of teaching, once it is settled what learns.
            device: where the network runs; mixed precision (bfloat16) on CUDA.
            workers: the processes that train the network; each is given whole batches, and takes its share.
        """
        config = plan.config
        self._model = model
        self._config = config
        self._plan = plan
        self._device = device
        self._workers = workers
        self._optimizer = build_optimizer(model, config, still_norms=plan.still_norms)
        self._hooks = make_hooks()
        steps = config.epochs * plan.steps_per_epoch
        self._balancer = build_balancer(config, model, names=["task", *(hook.name for hook in self._hooks)])
        self._scheduler = build_scheduler(self._optimizer, steps=steps, warmup_fraction=config.warmup_fraction)
        self._average = WeightAverage(model, config.ema) if config.ema else None

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "balancer": self._balancer.state_dict(),
            "average": self._average.state_dict() if self._average else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
        self._balancer.load_state_dict(state["balancer"])
        if self._average:
            self._average.load_state_dict(state["average"])

    @property
    def learning_rate(self) -> float:
        """Of the last step, before the factors of the network's parts."""
        factor: float = self._scheduler.lr_lambdas[0](max(0, self._scheduler.last_epoch - 1))
        return self._config.learning_rate * factor

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the network, as long as the context lasts, the averaged weights that `finish` would put in place now."""
        if self._average is None:
            yield
            return
        learning = {name: value.clone() for name, value in self._model.state_dict().items()}
        self._average.apply()
        try:
            yield
        finally:
            self._model.load_state_dict(learning)

    def train_one_epoch(
        self,
        batches: Iterable[Batch],
        *,
        epoch: int,
        tally: Tally | None = None,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> dict[str, float]:
        """Go through the batches once.

        Args:
            batches: of the stage's task.
            epoch: of the stage, from 0.
            tally: of the part of the epoch that is done; changed in place after each batch.
            on_batch: told the number of pictures after each batch.

        Returns:
            The mean over pictures of each part of the loss, and of their weighted sum ("loss").

        Raises:
            TrainingDivergedError: the loss or its gradient became infinite or no number; the weights are as before it.
        """
        self._model.train()
        tally = tally or Tally()
        for batch in batches:
            count = len(batch.images)
            share = self._workers.share(count)
            mine = move_batch(self._workers.shard(batch), self._device)
            parts = self._step(mine, share=share, epoch=epoch, index=tally.steps)
            tally.steps += 1
            tally.pictures += count
            for name, part in parts.items():
                # Weighted by pictures, then divided once: a mean of batch means would over-weight a short last batch.
                tally.sums[name] = tally.sums.get(name, 0.0) + part * share * count
            on_batch(count)
        return {name: value / tally.pictures for name, value in self._workers.add(tally.sums).items()}

    def _step(self, batch: Batch, *, share: float, epoch: int, index: int) -> dict[str, float]:
        with mixed_precision(self._device):
            features = self._model.extract(batch.images)
            logits = self._model.head.answer(features, self._config.task)
        progress = (epoch + index / self._plan.steps_per_epoch) / self._config.epochs
        step = Step(batch, features, logits, progress)
        groups = {"task": self._plan.objective(logits, batch, epoch)}
        for hook in self._hooks:
            if named := hook.losses(step):
                groups[hook.name] = named
        parts = {name: part for named in groups.values() for name, part in named.items()}
        totals = {
            name: torch.stack([part.reshape(()) for part in named.values()]).sum() for name, named in groups.items()
        }
        # Of all parameters: clipping would count what an earlier stage left on those that are frozen in this one.
        self._model.zero_grad(set_to_none=True)
        loss = self._balancer.backward(totals)
        told = {name: part.item() for name, part in parts.items()} | {"loss": loss}
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"the loss became {loss}: {told}; lower learning_rate or the strength of a method"
            )
        self._workers.average(self._model, share)
        for hook in self._hooks:
            hook.adjust_gradients(step)
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), self._config.clip_norm)
        if not torch.isfinite(norm):
            raise TrainingDivergedError(
                f"the gradient became {norm.item()}; lower learning_rate or the strength of a method"
            )
        self._optimizer.step()
        self._scheduler.step()
        if self._average:
            self._average.update()
        return told

    def finish(self) -> None:
        """End the stage: averaged weights in place, then the hooks' last word."""
        if self._average:
            self._average.apply()
        for hook in self._hooks:
            hook.finish()
