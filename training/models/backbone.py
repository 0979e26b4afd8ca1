"""MobileNetV3-Small features (arXiv:1905.02244) at four strides, with ImageNet weights from torchvision or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

from training.models.pyramid import Pyramid

# ImageNet statistics of RGB in 0..1, as torchvision's weights were trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_PREFIX = "features."
_TAIL_START = 9  # the layer that halves stride 16


class _Tap(NamedTuple):
    layer: int
    channels: int


# Where a stride ends: the last layer before the next halving, and the channels that it hands on.
_BLOCKS = (_Tap(1, 16), _Tap(3, 24), _Tap(8, 48), _Tap(12, 576))
# The 1x1 expansion inside the layer that halves next: 4 to 6 times as many channels, computed anyway. MobileNetV3's
# paper taps SSDLite there (arXiv:1905.02244, sec. 6.3). The deepest tap is the last layer either way.
_EXPANSIONS = (_Tap(2, 72), _Tap(4, 96), _Tap(9, 288), _Tap(12, 576))


class WeightsError(ValueError):
    """Backbone weights cannot be had, or do not fit the backbone."""


class MobileNetV3Small(nn.Sequential):
    """The layers of torchvision's `mobilenet_v3_small().features`, under the same names.

    Attributes:
        channels: of the four features, by stride.
    """

    def __init__(self, taps: Literal["blocks", "expansions"] = "blocks") -> None:
        super().__init__(*mobilenet_v3_small(weights=None).features)
        chosen = _EXPANSIONS if taps == "expansions" else _BLOCKS
        self.channels = tuple(tap.channels for tap in chosen)
        self._tap_layers = tuple(tap.layer for tap in chosen)
        self._inside = taps == "expansions"

    def forward(self, pixels: Tensor) -> Pyramid:
        """[N, 3, S, S] normalised RGB to features at the strides 4, 8, 16 and 32."""
        features: list[Tensor] = []
        deepest = len(self) - 1
        for index, layer in enumerate(self):
            if index in self._tap_layers and self._inside and index != deepest:
                # Layers that halve have no residual connection, so their parts can be run one after another.
                expansion, *rest = layer.get_submodule("block").children()
                pixels = expansion(pixels)
                features.append(pixels)
                for part in rest:
                    pixels = part(pixels)
                continue
            pixels = layer(pixels)
            if index in self._tap_layers:
                features.append(pixels)
        return Pyramid(*features)

    def tail(self) -> nn.Sequential:
        """The layers that make features of whole pictures out of those at stride 16; the same ones, not copies."""
        return nn.Sequential(*list(self)[_TAIL_START:])


def load_imagenet_weights(backbone: nn.Module, path: Path | None) -> None:
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
