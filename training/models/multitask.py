"""The whole network: uint8 pictures in, the logits of three tasks out, one forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from training.config import ModelConfig, Task
from training.models.backbone import OUT_CHANNELS, STRIDE, build_backbone, load_imagenet_weights
from training.models.heads import TaskLogits, UnifiedHead
from training.models.neck import build_single_level_neck

# ImageNet statistics of RGB in 0..1, as torchvision's weights were trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class MultiTaskModel(nn.Module):
    """Backbone, neck and head; normalisation is inside, so no task can be fed differently from another.

    Attributes:
        stride: input pixels per grid cell.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig, num_classes: dict[Task, int]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stride = STRIDE
        self.backbone = build_backbone()
        self.neck = build_single_level_neck(OUT_CHANNELS, config.neck_channels)
        self.head = UnifiedHead(config.neck_channels, config.head_channels, num_classes)
        self._frozen_batch_norm = config.batch_norm == "frozen"
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        if self._frozen_batch_norm:
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.requires_grad_(requires_grad=False)

    def forward(self, images: Tensor) -> TaskLogits:
        """[N, S, S, 3] uint8 RGB, letterboxed, to logits on the S / 32 grid."""
        pixels = images.permute(0, 3, 1, 2).to(self.mean.dtype)
        return self.head(self.neck(self.backbone((pixels - self.mean) / self.std)))  # type: ignore[no-any-return]  # Module call

    def train(self, mode: bool = True) -> Self:
        """Switch to training; frozen batch-norm stays in evaluation, where it does not move its statistics."""
        super().train(mode)
        if mode and self._frozen_batch_norm:
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """All trainable parameters that more than one task reads: everything but the prediction rows."""
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and not name.startswith("head.predict.")
        }


def build_model(config: ModelConfig, num_classes: dict[Task, int], *, weights: Path | None = None) -> MultiTaskModel:
    """Build the network, with ImageNet weights in the backbone when the config asks for them.

    Args:
        config: see `ModelConfig`.
        num_classes: per task; background counts for segmentation.
        weights: a state dict to take the ImageNet weights from; None lets torchvision download them.

    Raises:
        WeightsError: the weights cannot be had or do not fit.
    """
    model = MultiTaskModel(config, num_classes)
    if config.backbone_weights == "imagenet":
        load_imagenet_weights(model.backbone, weights)
    return model.to(memory_format=torch.channels_last)
