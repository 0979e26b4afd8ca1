"""Learning without forgetting: the network as it was before the stage teaches the one that learns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import Task
from training.detection.schemes import DetectionScheme, build_scheme
from training.hooks.context import StageContext
from training.hooks.divergences import compute_bernoulli_divergence, compute_divergence
from training.hooks.hook import Hook, Step
from training.hooks.passes import make_frozen_copy, mixed_precision

# Below it a box means little, and there are thousands. ERD (arXiv:2204.02136) sets the bar by the scores' statistics.
_SURE_SCORE = 0.1


def output_distillation(
    task: Task,
    student: Tensor,
    teacher: Tensor,
    scheme: DetectionScheme,
    *,
    temperature: float,
    input_size: int,
) -> Tensor:
    """Measure how far the student's answers are from the teacher's; 0 where they agree.

    Softmax answers (segmentation, in every cell; classification) are compared by the Kullback-Leibler divergence at a
    temperature, times its square so that the gradient keeps its size (Hinton et al., arXiv:1503.02531, sec. 2), and
    averaged over cells and pictures. Detection: see `detection_distillation`.

    Args:
        task: what the logits are about.
        student: logits of the task; gradients flow into them.
        teacher: logits of the same shape; a constant.
        scheme: how to read the logits of detection.
        temperature: of every softmax, > 0.
        input_size: side of the square input; in pixels.

    Returns:
        A scalar, >= 0.
    """
    student, teacher = student.float(), teacher.detach().float()
    if task is Task.DETECTION:
        return detection_distillation(student, teacher, scheme, temperature=temperature, input_size=input_size)
    return compute_divergence(student, teacher, temperature).mean()


def detection_distillation(
    student: Tensor, teacher: Tensor, scheme: DetectionScheme, *, temperature: float, input_size: int
) -> Tensor:
    """Compare detections: object or not at all points; boxes, and classes if they are a softmax, at sure ones.

    Object or not is the Kullback-Leibler divergence of two Bernoulli distributions; boxes are compared by smooth L1 in
    strides, as the scheme regresses them. Sure is a point where the teacher's best score is above 0.1. All parts are
    summed, then divided by the number of sure points in the batch, or by that of pictures where there are fewer.

    Args:
        student: logits as the scheme reads them, in float; gradients flow into them.
        teacher: the same of the teacher; a constant.
        scheme: how to read them.
        temperature: of the softmax; Bernoulli distributions are compared as they are.
        input_size: side of the square input; in pixels.

    Returns:
        A scalar, >= 0.
    """
    said, known = (scheme.read(logits, input_size=input_size) for logits in (student, teacher))
    _, scores = scheme.decode(teacher, input_size=input_size)
    sure = scores.amax(dim=-1) > _SURE_SCORE
    total: Tensor = compute_bernoulli_divergence(said.objectness, known.objectness).sum()
    total += F.smooth_l1_loss(said.boxes[sure], known.boxes[sure], reduction="sum")
    if said.classes is not None and known.classes is not None:
        total += compute_divergence(said.classes[sure], known.classes[sure], temperature).sum()
    return total / sure.sum().clamp(min=len(student))


def feature_distillation(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean over levels of the mean squared difference, as a share of the teacher's mean square: 1 is all of it.

    Args:
        student: levels [N, C, h, w]; gradients flow into them.
        teacher: the same levels of the teacher; constants.
    """
    shares = [
        F.mse_loss(mine.float(), other.float()) / other.float().square().mean().clamp(min=torch.finfo().tiny)
        for mine, other in zip(student, teacher, strict=True)
    ]
    return torch.stack(shares).mean()


class Distillation(Hook):
    """The network before the stage is asked about the pictures of the new task (LwF, arXiv:1606.09282).

    No picture of an earlier task is needed: what counts is that the answers about these stay as they were. The teacher
    answers as in serving; where the stage's batch-norm is live, the student differs from it before anything has moved.
    """

    name = "lwf"

    def __init__(self, context: StageContext) -> None:
        """Copy the network as it was."""
        self._model = context.model
        self._teacher = make_frozen_copy(context.model, context.before)
        self._config = context.stage.distillation
        self._tasks = context.learned
        self._scheme = build_scheme(context.config)
        self._device = context.device

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Name "lwf/segmentation" and so on for each earlier task's outputs, "lwf/features" for the neck's levels."""
        images, parts = step.batch.images, {}
        with mixed_precision(self._device):
            with torch.no_grad():
                known = self._teacher.extract(images)
            for task in self._tasks if self._config.outputs else ():
                with torch.no_grad():
                    teacher = self._teacher.head.answer(known, task)
                student = self._model.head.answer(step.features, task)
                difference = output_distillation(
                    task,
                    student,
                    teacher,
                    self._scheme,
                    temperature=self._config.temperature,
                    input_size=images.shape[1],
                )
                parts[f"lwf/{task}"] = self._config.outputs * difference
        if self._config.features:
            difference = feature_distillation(step.features.levels, known.levels)
            parts["lwf/features"] = self._config.features * difference
        return parts
