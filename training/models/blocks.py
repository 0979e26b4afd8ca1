"""Small parts that necks and branches are made of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def conv_norm(
    in_channels: int, channels: int, kernel_size: int = 1, *, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    """Build convolution, batch-norm and, unless told otherwise, ReLU; the size is kept (or divided by the stride)."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels, channels, kernel_size, stride=stride, padding=kernel_size // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(channels),
        *([nn.ReLU()] if relu else []),
    )


def separable_conv(in_channels: int, channels: int, kernel_size: int = 3, *, stride: int = 1) -> nn.Sequential:
    """Build a depthwise and a 1x1 convolution, each with batch-norm and ReLU (MobileNet, arXiv:1704.04861)."""
    return nn.Sequential(
        *conv_norm(in_channels, in_channels, kernel_size, stride=stride, groups=in_channels),
        *conv_norm(in_channels, channels),
    )


def resize_like(features: Tensor, other: Tensor) -> Tensor:
    """Resize [N, C, h, w] bilinearly to the height and width of `other`."""
    return F.interpolate(features, size=other.shape[2:], mode="bilinear", align_corners=False)
