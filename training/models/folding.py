"""Static gates multiplied into the convolutions that follow them, so that serving does not pay for routing."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from training.config import Task
from training.models.branches import Branches, DetectionBranch, SegmentationBranch
from training.models.multitask import MultiTaskModel
from training.models.pyramid import Features
from training.models.routing import TaskGate


class FoldedDetection(nn.Module):
    """A detection branch that looks at each level through first convolutions of the level's own.

    The levels' gates differ, and batch-norm comes between the first convolution and what could make up for that. All
    other layers are the same modules for every level, as in the branch this was made of.
    """

    def __init__(self, branch: DetectionBranch, factors: list[Tensor]) -> None:
        """Prepare a branch a level.

        Args:
            branch: that read gated levels; not changed.
            factors: what each level [N, C, h, w] was multiplied by, [C] each.
        """
        super().__init__()
        self.levels = nn.ModuleList(_read_one_level(branch, index, factor) for index, factor in enumerate(factors))

    def forward(self, features: Features) -> Tensor:
        """As `DetectionBranch`."""
        parts = [
            one(features._replace(levels=(level,))) for one, level in zip(self.levels, features.levels, strict=True)
        ]
        return torch.cat(parts, dim=1)


def fold_gates(model: MultiTaskModel) -> MultiTaskModel:
    """Copy a network without its static gates: their constants are in the weights of the copy.

    The answers are the same up to rounding. A dynamic gate depends on the picture, and stays. The copy is for
    answering: its weights cannot be loaded into a network that `build_model` makes.
    """
    folded = copy.deepcopy(model)
    head = folded.head
    if not isinstance(head, Branches):
        return folded
    for name, gate in list(head.gates.items()):
        if isinstance(gate, TaskGate) and gate.context is None:
            levels, channels = gate.constants()
            _fold(head, Task(name), [(level * channels).detach() for level in levels])
            del head.gates[name]
    return folded


def _fold(head: Branches, task: Task, factors: list[Tensor]) -> None:
    branch = getattr(head, str(task))
    if isinstance(branch, DetectionBranch):
        head.add_module(str(task), FoldedDetection(branch, factors))
    elif isinstance(branch, SegmentationBranch):
        branch.refine = _scale_input(branch.refine, factors[0])
    # LR-ASPP reads none of the gated levels.


def _read_one_level(branch: DetectionBranch, index: int, factor: Tensor) -> DetectionBranch:
    one = copy.deepcopy(branch)
    one.scales = nn.Parameter(branch.scales[index : index + 1].detach())
    one.scores, one.boxes = branch.scores, branch.boxes
    one.score_tower = _scale_input(branch.score_tower, factor)
    one.box_tower = _scale_input(branch.box_tower, factor)
    return one


def _scale_input(block: nn.Sequential, factor: Tensor) -> nn.Sequential:
    """Give layers that read channel c as if it were `factor[c]` times it; the first convolution is a depthwise one."""
    first, *others = block
    if isinstance(first, nn.Sequential):
        return nn.Sequential(_scale_input(first, factor), *others)
    scaled = copy.deepcopy(first)
    with torch.no_grad():
        scaled.get_parameter("weight").mul_(factor.view(-1, 1, 1, 1))
    return nn.Sequential(scaled, *others)
