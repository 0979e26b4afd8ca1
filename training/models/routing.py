"""Dynamic task routing: what of the shared levels and channels each task listens to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class TaskGate(nn.Module):
    """One weight a level and one a channel, of one task, both 1 at the start.

    static: the weights are parameters, so that `constants` can be folded into the convolution that follows.
    dynamic: they also depend on the picture, by a linear map of the pooled coarsest level (as squeeze-and-excitation
    does, arXiv:1709.01507), and cannot be folded.
    """

    def __init__(self, levels: int, channels: int, mode: Literal["static", "dynamic"]) -> None:
        super().__init__()
        self.level_logits = nn.Parameter(torch.zeros(levels))
        self.channel_logits = nn.Parameter(torch.zeros(channels))
        self.context = nn.Linear(channels, levels + channels) if mode == "dynamic" else None
        if self.context is not None:
            nn.init.zeros_(self.context.weight)
            nn.init.zeros_(self.context.bias)

    def constants(self) -> tuple[Tensor, Tensor]:
        """Weights of the levels [L], which sum to L, and of the channels [C], each 0..2; without the picture's part."""
        levels, channels = self.level_logits.softmax(dim=-1), self.channel_logits.sigmoid()
        return levels * len(self.level_logits), 2 * channels

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """L levels [N, C, h_l, w_l] to the same, each times its weight and its channels'."""
        if self.context is None:
            by_level, by_channel = self.constants()
            return tuple(level * (by_level[index] * by_channel).view(1, -1, 1, 1) for index, level in enumerate(levels))
        moved = self.context(levels[-1].mean(dim=(2, 3)))
        count = len(self.level_logits)
        by_level = count * (self.level_logits + moved[:, :count]).softmax(dim=-1)
        by_channel = 2 * (self.channel_logits + moved[:, count:]).sigmoid()
        return tuple(
            level * (by_level[:, index, None] * by_channel)[:, :, None, None] for index, level in enumerate(levels)
        )
