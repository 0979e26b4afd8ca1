"""One epoch of a stage or of the polish, and a position in it from which a stopped run goes on to the same end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from training.data.batches import Batch
from training.distributed import Workers
from training.learner import Learner, Tally


class BatchSource(Protocol):
    """The batches of one epoch, which knows how far it has been gone through."""

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches that are left."""

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken; what has been given out is not read again."""

    def close(self) -> None:
        """Let go of what makes batches; none is asked for any more."""


@dataclass(frozen=True, slots=True)
class Leg:
    """A stage, or the polish, as it is trained.

    Attributes:
        index: of the stage; the polish comes after the last.
        name: of the stage's task, or of the polish.
        epochs: in all.
        learner: of the stage.
        begin_epoch: gives the batches of an epoch.
    """

    index: int
    name: str
    epochs: int
    learner: Learner
    begin_epoch: Callable[[np.random.Generator], BatchSource]


class Epoch:
    """One epoch of a leg; `state_dict` holds it between two steps, beside network and learner.

    Attributes:
        leg: that it belongs to.
        number: in the leg, from 0.
    """

    def __init__(self, leg: Leg, number: int, *, seed: int, device: torch.device, workers: Workers) -> None:
        """Begin the epoch: from here on chance is its own.

        Args:
            leg: that it belongs to.
            number: in the leg, from 0.
            seed: of the run.
            device: of the network.
            workers: the processes that train it.
        """
        # A generator per epoch: a resumed run draws what the uninterrupted one would have drawn.
        rng = np.random.default_rng([seed, leg.index, number])
        torch.manual_seed(int(rng.integers(2**62)) + workers.rank)  # for dropout
        self.leg = leg
        self.number = number
        self._device = device
        self._workers = workers
        self._batches = leg.begin_epoch(rng)
        self._tally = Tally()
        self._began = time.perf_counter()

    @property
    def pictures(self) -> int:
        """How many have been learned from so far."""
        return self._tally.pictures

    def train(self, on_batch: Callable[[int], None]) -> dict[str, Any]:
        """Go through the batches that are left, and give the history's entry about the epoch.

        Args:
            on_batch: told the number of pictures after each batch; what it raises ends the epoch there.
        """
        learner = self.leg.learner
        with closing(self._batches) as batches:
            losses = learner.train_one_epoch(batches, epoch=self.number, tally=self._tally, on_batch=on_batch)
        return {
            "kind": "epoch",
            "stage": self.leg.name,
            "epoch": self.number + 1,
            "losses": losses,
            "learning_rate": learner.learning_rate,
            "seconds": time.perf_counter() - self._began,
        }

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on; every process has to call it."""
        own = {"sums": dict(self._tally.sums), "chance": torch.get_rng_state()}
        if self._device.type == "cuda":
            own["cuda_chance"] = torch.cuda.get_rng_state(self._device)
        return {
            "steps": self._tally.steps,
            "pictures": self._tally.pictures,
            "seconds": time.perf_counter() - self._began,
            "batches": self._batches.state_dict(),
            "processes": self._workers.gather(own),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken; exactly, if there are as many processes as there were."""
        self._tally.steps, self._tally.pictures = state["steps"], state["pictures"]
        self._began -= state["seconds"]
        self._batches.load_state_dict(state["batches"])
        processes = state["processes"]
        if len(processes) != self._workers.world_size:  # the losses are told right, dropout draws anew
            for other in processes if self._workers.is_main else ():
                for name, value in other["sums"].items():
                    self._tally.sums[name] = self._tally.sums.get(name, 0.0) + value
            return
        own = processes[self._workers.rank]
        self._tally.sums = dict(own["sums"])
        torch.set_rng_state(own["chance"])
        if self._device.type == "cuda" and "cuda_chance" in own:
            torch.cuda.set_rng_state(own["cuda_chance"], self._device)
