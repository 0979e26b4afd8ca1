"""Necks: from the backbone's features to what the heads read."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from training.models.blocks import conv_norm, resize_like, separable_conv
from training.models.pyramid import Pyramid


class FeaturePyramid(nn.Module):
    """A light feature pyramid: every level has the same channels and has heard from the coarser ones.

    1x1 laterals, a top-down path that adds, a separable convolution a level (FPN, arXiv:1612.03144, made light as
    NanoDet does). With `bottom_up` the finer levels then tell the coarser ones (PAN, arXiv:1803.01534).
    """

    def __init__(self, backbone_channels: Sequence[int], channels: int, *, kernel_size: int, bottom_up: bool) -> None:
        super().__init__()
        in_channels = backbone_channels[1:]
        self.laterals = nn.ModuleList(conv_norm(count, channels, relu=False) for count in in_channels)
        self.smooth = nn.ModuleList(separable_conv(channels, channels, kernel_size) for _ in in_channels)
        steps = len(in_channels) - 1 if bottom_up else 0
        self.down = nn.ModuleList(separable_conv(channels, channels, kernel_size, stride=2) for _ in range(steps))
        self.merge = nn.ModuleList(separable_conv(channels, channels, kernel_size) for _ in range(steps))

    def forward(self, pyramid: Pyramid) -> tuple[Tensor, ...]:
        """The backbone's features to levels [N, channels, S / stride, S / stride] at the strides 8, 16 and 32."""
        levels = [lateral(feature) for lateral, feature in zip(self.laterals, pyramid[1:], strict=True)]
        for index in range(len(levels) - 2, -1, -1):
            levels[index] = levels[index] + resize_like(levels[index + 1], levels[index])
        levels = [smooth(level) for smooth, level in zip(self.smooth, levels, strict=True)]
        for index, (down, merge) in enumerate(zip(self.down, self.merge, strict=True), start=1):
            levels[index] = merge(levels[index] + down(levels[index - 1]))
        return tuple(levels)


class SingleLevel(nn.Sequential):
    """The report's neck: 1x1 conv, batch-norm and ReLU on the coarsest features."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(*conv_norm(in_channels, channels))

    def forward(self, pyramid: Pyramid) -> tuple[Tensor, ...]:
        """The backbone's features to one level [N, channels, S / 32, S / 32]."""
        return (super().forward(pyramid.s32),)  # type: ignore[no-untyped-call]  # torch's, untyped
