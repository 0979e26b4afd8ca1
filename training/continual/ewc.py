"""Elastic weight consolidation: a spring from each important weight to where an earlier task left it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where one task left the shared weights, and how much it minds their moving.

    Attributes:
        parameters: by name, values at the end of the task's stage.
        importance: by the same names, >= 0, mean 1 (`continual.fisher`).
    """

    parameters: dict[str, Tensor]
    importance: dict[str, Tensor]

    def to(self, device: torch.device) -> Anchor:
        """Give the same anchor on another device."""
        return Anchor(
            *({name: value.to(device) for name, value in part.items()} for part in (self.parameters, self.importance))
        )


def make_anchor(parameters: dict[str, nn.Parameter], importance: dict[str, Tensor]) -> Anchor:
    """Copy the weights as they are now."""
    return Anchor({name: parameter.detach().clone() for name, parameter in parameters.items()}, importance)


def ewc_penalty(parameters: dict[str, nn.Parameter], anchor: Anchor) -> Tensor:
    """Half the sum of importance times squared distance (Kirkpatrick et al., arXiv:1612.00796, eq. 3), lambda left out.

    Args:
        parameters: the shared weights as they are now; the names the anchor knows.
        anchor: of one earlier task.

    Returns:
        A scalar, >= 0; its gradient flows into `parameters`.
    """
    terms = [
        (anchor.importance[name] * (parameters[name] - value) ** 2).sum() for name, value in anchor.parameters.items()
    ]
    return 0.5 * torch.stack(terms).sum()
