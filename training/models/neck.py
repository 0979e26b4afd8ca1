"""Necks: from the backbone's features to what the head reads."""

from __future__ import annotations

from torch import nn


def build_single_level_neck(in_channels: int, channels: int) -> nn.Sequential:
    """Build the report's neck, one level: 1x1 conv, batch-norm, ReLU; [N, in_channels, h, w] to [N, channels, h, w]."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )
