"""Averages of weights: over the steps of a stage, and between the model before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.hooks.hook import Hook


class WeightAverage:
    """An exponential moving average of a network's weights and statistics.

    The decay starts low and grows to its value, so that the first steps are soon forgotten
    (TensorFlow's `ExponentialMovingAverage(num_updates=...)`).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._steps = 0
        self._average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the network as it is now."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for name, value in self._model.state_dict().items():
            if value.dtype.is_floating_point:
                self._average[name].lerp_(value, 1 - decay)
            else:
                self._average[name].copy_(value)

    def apply(self) -> None:
        """Put the average in the place of the network's weights."""
        self._model.load_state_dict(self._average)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""
        return {"steps": self._steps, "average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self._steps = state["steps"]
        for name, value in state["average"].items():
            self._average[name].copy_(value)


@dataclass(frozen=True, eq=False)
class StageAveraging(Hook):
    """After the stage, the shared weights go part of the way back to where they were before it.

    WiSE-FT (arXiv:2109.01903) between tasks: new = (1 - share) * after + share * before.

    Attributes:
        parameters: the shared ones; changed in place by `finish`.
        before: state of the network before the stage.
        share: of the weights before the stage, 0..1.
    """

    name = "averaging"

    parameters: Mapping[str, nn.Parameter]
    before: Mapping[str, Tensor]
    share: float

    @torch.no_grad()
    def finish(self) -> None:
        """Average."""
        for name, parameter in self.parameters.items():
            parameter.lerp_(self.before[name].to(parameter.device), self.share)
