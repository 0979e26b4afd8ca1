"""The whole network: uint8 pictures in, the logits of all its tasks out, one forward pass."""

from __future__ import annotations

import copy
from collections.abc import Collection
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from training.config import ModelConfig, Task
from training.models.backbone import MEAN, STD, MobileNetV3Small, load_imagenet_weights
from training.models.branches import Branches
from training.models.efficientnet_lite import EfficientNetLite
from training.models.heads import TaskLogits, UnifiedHead
from training.models.neck import FeaturePyramid, SingleLevel
from training.models.pyramid import Features
from training.options.stage import Part


class MultiTaskModel(nn.Module):
    """Backbone, neck and head; normalisation is inside, so no task can be fed differently from another.

    Attributes:
        num_classes: of each task that there is a head for.
        strides: of the neck's levels; in input pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig, num_classes: dict[Task, int]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone: MobileNetV3Small | EfficientNetLite = (
            MobileNetV3Small(config.taps)
            if config.backbone == "mobilenet_v3_small"
            else EfficientNetLite(int(config.backbone[-1]))
        )
        channels = self.backbone.channels
        self.neck: SingleLevel | FeaturePyramid
        self.head: UnifiedHead | Branches
        if config.neck == "single":
            self.strides: tuple[int, ...] = (32,)
            self.neck = SingleLevel(channels[-1], config.neck_channels)
            self.head = UnifiedHead(config.neck_channels, config.head_channels, num_classes)
        else:
            self.strides = (8, 16, 32)
            self.neck = FeaturePyramid(
                channels, config.neck_channels, kernel_size=config.kernel_size, bottom_up=config.neck == "pan"
            )
            tail = None
            if config.classification == "tail" and isinstance(self.backbone, MobileNetV3Small):
                tail = copy.deepcopy(self.backbone.tail())
            self.head = Branches(config, channels, num_classes, tail=tail)
        self._still_norms: frozenset[Part] = frozenset({"backbone"} if config.batch_norm == "frozen" else ())
        self._stage_still: frozenset[Part] = frozenset()
        self._frozen_parts: frozenset[Part] = frozenset()
        self.begin_stage()
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def extract(self, images: Tensor) -> Features:
        """[N, S, S, 3] uint8 RGB, letterboxed, to what all heads read."""
        pixels = images.permute(0, 3, 1, 2).to(self.mean.dtype)
        pyramid = self.backbone((pixels - self.mean) / self.std)
        return Features(pyramid, self.neck(pyramid))

    def forward(self, images: Tensor) -> TaskLogits:
        """[N, S, S, 3] uint8 RGB, letterboxed, to the logits of the tasks."""
        return self.head(self.extract(images))  # type: ignore[no-any-return]  # Module call

    def parts(self) -> dict[Part, nn.Module]:
        """The network in pieces that can learn at rates of their own; the unified head's rows are in its stem."""
        if isinstance(self.head, UnifiedHead):
            return {"backbone": self.backbone, "neck": self.neck, "stem": self.head}
        tail = self.head.tail
        branches: dict[Part, nn.Module] = {"backbone": self.backbone, "neck": self.neck}
        for task in self.head.tasks:
            branches[task.value] = self.head.part(task)
        return branches if tail is None else {**branches, "tail": tail}

    def begin_stage(self, *, frozen: Collection[Part] = (), still_norms: Collection[Part] = ()) -> None:
        """Choose what learns from now on: all that the config leaves free, less the parts named here.

        Args:
            frozen: parts that are used as they are: no gradients, evaluation mode throughout.
            still_norms: parts that learn, but whose batch-norm keeps its statistics and affine weights.
        """
        self._frozen_parts, self._stage_still = frozenset(frozen), frozenset(still_norms)
        for part, module in self.parts().items():
            module.requires_grad_(part not in self._frozen_parts)
        for norm in self._find_still_norms():
            norm.requires_grad_(requires_grad=False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch to training; what is frozen stays in evaluation, where batch-norm does not move its statistics."""
        super().train(mode)
        parts = self.parts()
        for part in self._frozen_parts:
            parts[part].eval()
        for norm in self._find_still_norms():
            norm.eval()
        return self

    def _find_still_norms(self) -> list[nn.BatchNorm2d]:
        still = [module for part, module in self.parts().items() if part in self._still_norms | self._stage_still]
        return [norm for module in still for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """All trainable parameters that more than one task reads: everything but branches and prediction rows."""
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and name.startswith(("backbone.", "neck.", "head.stem."))
        }


def build_model(config: ModelConfig, num_classes: dict[Task, int], *, weights: Path | None = None) -> MultiTaskModel:
    """Build the network, with ImageNet weights in the backbone when the config asks for them.

    Args:
        config: see `ModelConfig`.
        num_classes: per task that the network is to have a head for; background counts for segmentation.
        weights: a state dict to take the ImageNet weights from; None lets torchvision download them.

    Raises:
        WeightsError: the weights cannot be had or do not fit.
    """
    model = MultiTaskModel(config, num_classes)
    if config.backbone_weights == "imagenet" and isinstance(model.backbone, MobileNetV3Small):
        load_imagenet_weights(model.backbone, weights)
        if isinstance(model.head, Branches) and (tail := model.head.tail) is not None:
            tail.load_state_dict(model.backbone.tail().state_dict())
    return model.to(memory_format=torch.channels_last)
