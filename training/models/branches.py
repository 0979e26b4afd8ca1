"""Light branches: a few convolutions a task after the shared neck."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.config import ModelConfig, Task
from training.models.blocks import conv_norm, resize_like, separable_conv
from training.models.heads import TaskLogits
from training.models.pyramid import Features
from training.models.routing import TaskGate

_SKIP_CHANNELS = 24
_LRASPP_CHANNELS = 128


class SegmentationBranch(nn.Module):
    """Class logits at stride 8, or 4 with the skip; the picture as a whole says which channels matter.

    The gate by pooled features is LR-ASPP's (arXiv:1905.02244, sec. 6.4).
    """

    def __init__(self, config: ModelConfig, s4_channels: int, s32_channels: int, num_classes: int) -> None:
        super().__init__()
        channels = config.neck_channels
        self.refine = separable_conv(channels, channels, config.kernel_size)
        self.context = nn.Conv2d(s32_channels, channels, 1)
        self.mix = separable_conv(channels, channels, config.kernel_size)
        with_skip = config.segmentation_skip == "s4"
        self.skip = conv_norm(s4_channels, _SKIP_CHANNELS) if with_skip else None
        self.merge = separable_conv(channels + _SKIP_CHANNELS, channels, config.kernel_size) if with_skip else None
        self.drop = nn.Dropout2d(config.dropout)
        self.predict = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: Features) -> Tensor:
        """[N, G, S / 8, S / 8], or at stride 4 with the skip."""
        whole = features.pyramid.s32.mean(dim=(2, 3), keepdim=True)
        seen = self.mix(self.refine(features.levels[0]) * (2 * self.context(whole).sigmoid()))
        if self.skip is not None and self.merge is not None:
            fine = self.skip(features.pyramid.s4)
            seen = self.merge(torch.cat([resize_like(seen, fine), fine], dim=1))
        return self.predict(self.drop(seen))  # type: ignore[no-any-return]  # Module call


class LrasppBranch(nn.Module):
    """LR-ASPP as published (arXiv:1905.02244, sec. 6.4): gated stride-32 features, added to stride-8 ones; no neck."""

    def __init__(self, s8_channels: int, s32_channels: int, num_classes: int) -> None:
        super().__init__()
        self.coarse = conv_norm(s32_channels, _LRASPP_CHANNELS)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(s32_channels, _LRASPP_CHANNELS, 1, bias=False), nn.Sigmoid()
        )
        self.predict_coarse = nn.Conv2d(_LRASPP_CHANNELS, num_classes, 1)
        self.predict_fine = nn.Conv2d(s8_channels, num_classes, 1)

    def forward(self, features: Features) -> Tensor:
        """[N, G, S / 8, S / 8]."""
        s8, s32 = features.pyramid.s8, features.pyramid.s32
        coarse = self.coarse(s32) * self.gate(s32)
        return self.predict_coarse(resize_like(coarse, s8)) + self.predict_fine(s8)  # type: ignore[no-any-return]  # Module call


class DetectionBranch(nn.Module):
    """Scores and distances for every point of every level; the convolutions are shared by the levels."""

    def __init__(self, config: ModelConfig, levels: int, num_classes: int) -> None:
        super().__init__()
        channels, depth = config.neck_channels, config.detection_depth
        self.score_tower = nn.Sequential(
            *(separable_conv(channels, channels, config.kernel_size) for _ in range(depth))
        )
        self.box_tower = nn.Sequential(*(separable_conv(channels, channels, config.kernel_size) for _ in range(depth)))
        self.scores = nn.Conv2d(channels, num_classes, 1)
        self.boxes = nn.Conv2d(channels, 4 * (config.reg_max + 1), 1)
        self.scales = nn.Parameter(torch.ones(levels))  # FCOS' (arXiv:1904.01355, sec. 3.2): one a level
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.constant_(self.scores.bias, prior_bias(config.score_prior))  # type: ignore[arg-type]  # a conv with bias

    def forward(self, features: Features) -> Tensor:
        """[N, A, 4 * (reg_max + 1) + D]: box values, then class logits; points level by level, row by row."""
        parts = []
        for level, scale in zip(features.levels, self.scales, strict=True):
            boxes = self.boxes(self.box_tower(level)) * scale
            parts.append(torch.cat([boxes, self.scores(self.score_tower(level))], dim=1).flatten(2))
        return torch.cat(parts, dim=2).transpose(1, 2)


class ClassificationBranch(nn.Module):
    """A linear layer on pooled features; with `tail`, of a copy of the backbone's last layers that is its own.

    The copy starts from the same ImageNet weights and keeps them while other tasks reshape the shared ones.
    """

    def __init__(self, config: ModelConfig, s32_channels: int, num_classes: int, tail: nn.Sequential | None) -> None:
        super().__init__()
        self.tail = tail
        self.drop = nn.Dropout(config.dropout)
        self.predict = nn.Linear(s32_channels, num_classes)

    def forward(self, features: Features) -> Tensor:
        """[N, P]."""
        seen = features.pyramid.s32 if self.tail is None else self.tail(features.pyramid.s16)
        return self.predict(self.drop(seen.mean(dim=(2, 3))))  # type: ignore[no-any-return]  # Module call


class Branches(nn.Module):
    """One branch a task, each with a gate of its own on the shared levels where routing is on."""

    def __init__(
        self,
        config: ModelConfig,
        backbone_channels: tuple[int, ...],
        num_classes: dict[Task, int],
        *,
        tail: nn.Sequential | None,
    ) -> None:
        super().__init__()
        s4, s8, _, s32 = backbone_channels
        self.segmentation: nn.Module = (
            LrasppBranch(s8, s32, num_classes[Task.SEGMENTATION])
            if config.segmentation == "lraspp"
            else SegmentationBranch(config, s4, s32, num_classes[Task.SEGMENTATION])
        )
        self.detection = DetectionBranch(config, config.num_levels, num_classes[Task.DETECTION])
        self.classification = ClassificationBranch(config, s32, num_classes[Task.CLASSIFICATION], tail)
        self.gates = nn.ModuleDict()
        if config.routing != "none":
            for task in (Task.SEGMENTATION, Task.DETECTION):
                self.gates[str(task)] = TaskGate(config.num_levels, config.neck_channels, config.routing)

    def part(self, task: Task) -> nn.Module:
        """What learns for one task alone: its branch, without a tail, and its gate where it has one."""
        gate = [self.gates[str(task)]] if str(task) in self.gates else []
        if task is Task.CLASSIFICATION:  # its tail learns at a rate of its own
            return nn.ModuleDict({"drop": self.classification.drop, "predict": self.classification.predict})
        return nn.ModuleList([getattr(self, str(task)), *gate])

    def forward(self, features: Features) -> TaskLogits:
        """The logits of the three tasks."""
        return TaskLogits(**{task: self.answer(features, task) for task in Task})

    def answer(self, features: Features, task: Task) -> Tensor:
        """The logits of one task; the other branches are not run."""
        if str(task) in self.gates:
            features = features._replace(levels=self.gates[str(task)](features.levels))
        branch: nn.Module = getattr(self, str(task))
        return branch(features)  # type: ignore[no-any-return]  # Module call


def prior_bias(prior: float) -> float:
    """Give the bias whose sigmoid is `prior`, 0 < prior < 1 (RetinaNet, arXiv:1708.02002, sec. 4.1)."""
    return -math.log((1 - prior) / prior)
