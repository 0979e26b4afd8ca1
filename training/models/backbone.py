"""MobileNetV3-Small features (arXiv:1905.02244), with ImageNet weights from torchvision or from a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

OUT_CHANNELS = 576
STRIDE = 32
_PREFIX = "features."


class WeightsError(ValueError):
    """Backbone weights cannot be had, or do not fit the backbone."""


def build_backbone() -> nn.Sequential:
    """Build the features with random weights: [N, 3, S, S] normalised RGB in, [N, 576, S / 32, S / 32] out."""
    features: nn.Sequential = mobilenet_v3_small(weights=None).features
    return features


def load_imagenet_weights(backbone: nn.Sequential, path: Path | None) -> None:
    """Load ImageNet weights into the backbone, from a state dict in a file or, without one, by torchvision's download.

    Raises:
        WeightsError: no file and no internet, or tensors that are missing or of another shape.
    """
    source = str(path) if path else "torchvision's download"
    try:
        state: dict[str, Tensor] = (
            torch.load(path, weights_only=True, map_location="cpu")  # noqa: TID251 - weights only, no code
            if path
            else dict(MobileNet_V3_Small_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True))
        )
    except Exception as error:
        raise WeightsError(
            f"ImageNet weights cannot be read from {source}: {error}; give a state dict with --backbone-weights FILE"
        ) from error
    try:
        features = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if name.startswith(_PREFIX)}
        backbone.load_state_dict(features)
    except (AttributeError, RuntimeError) as error:  # the former: a file that holds no dict
        raise WeightsError(f"{source} does not hold the features of torchvision's mobilenet_v3_small") from error
