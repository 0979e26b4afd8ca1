"""What a task that has been learned leaves behind, to be held on to by later stages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a task left the shared weights, and how much it minds their moving.

    Attributes:
        parameters: by name, values at the end of the task's stage.
        importance: by the same names, >= 0; of one task the mean is 1 (`continual.fisher`).
    """

    parameters: dict[str, Tensor]
    importance: dict[str, Tensor]

    def to(self, device: torch.device) -> Anchor:
        """Give the same anchor on another device."""
        return Anchor(
            *({name: value.to(device) for name, value in part.items()} for part in (self.parameters, self.importance))
        )
