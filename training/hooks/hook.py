"""Where methods come into a training step: extra losses, changes to the gradient, a last word after the stage."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from training.data.batches import Batch
from training.models.pyramid import Features


class Step(NamedTuple):
    """What a hook sees of one training step.

    Attributes:
        batch: of the task that the stage learns, on the device of the network.
        features: that the network made of the batch's pictures; gradients flow through them.
        logits: of the stage's task, made of those features.
        progress: of the stage, 0..1.
    """

    batch: Batch
    features: Features
    logits: Tensor
    progress: float


class Hook:
    """One method, of not forgetting or of teaching; what a method does not need stays as it is here.

    Attributes:
        name: by which its losses are listed and weighed.
    """

    name = "hook"

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Name the parts that are added to the loss of the batch, weighted; gradients flow into the network."""
        del step
        return {}

    def adjust_gradients(self, step: Step) -> None:
        """Change the gradients in place; called after the backward pass and before they are clipped."""
        del step

    def finish(self) -> None:
        """Change the network in place after the last epoch of the stage."""
