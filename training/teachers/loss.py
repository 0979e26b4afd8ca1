"""The teachers of a stage as a hook: what they said about the pictures, learned beside the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from training.config import Task
from training.hooks.context import StageContext
from training.hooks.divergences import compute_divergence
from training.hooks.hook import Hook, Step
from training.hooks.passes import mixed_precision
from training.models.multitask import MultiTaskModel
from training.teachers.cache import TeacherCache, cache_answers
from training.teachers.sources import open_teacher


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What one teacher has to say about the pictures of a stage.

    Attributes:
        task: that it teaches; of the stage or another.
        answers: to the stage's own training pictures, by their rows.
        weight: of its loss.
        temperature: that softens its probabilities and the network's, > 0.
    """

    task: Task
    answers: TeacherCache
    weight: float
    temperature: float


@dataclass(frozen=True, eq=False)
class TeacherLoss(Hook):
    """Draws the network's logits to those of one or more teachers.

    A teacher of another task than the stage's is learning without forgetting from a larger network: it is asked about
    the stage's pictures, and the other task's branch has to agree with it.

    Attributes:
        model: that learns.
        task: of the stage.
        lessons: of its teachers.
    """

    name = "teacher"

    model: MultiTaskModel
    task: Task
    lessons: Sequence[Lesson]

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Name "teacher/<task>" for each task that is taught; pictures mixed of several are left out."""
        parts: dict[str, Tensor] = {}
        for lesson in self.lessons:
            if (loss := self._compute(lesson, step)) is not None:
                name = f"teacher/{lesson.task}"
                parts[name] = parts[name] + loss if name in parts else loss
        return parts

    def _compute(self, lesson: Lesson, step: Step) -> Tensor | None:
        chosen, placements = step.batch.placed()
        if not chosen:
            return None
        rows = step.batch.indices[chosen].tolist()
        logits = self._read_logits(lesson.task, step)[chosen].float()
        if lesson.task is Task.CLASSIFICATION:
            wanted = lesson.answers.gather_classes(rows)
            divergence = compute_divergence(logits, wanted.to(logits.device), lesson.temperature).mean()
        else:
            stride = step.batch.images.shape[1] // logits.shape[2]
            maps, valid = (part.to(logits.device) for part in lesson.answers.place_maps(rows, placements, stride))
            per_cell = compute_divergence(logits, maps, lesson.temperature)
            divergence = (per_cell * valid).sum() / valid.sum().clamp(min=1)
        return lesson.weight * divergence

    def _read_logits(self, task: Task, step: Step) -> Tensor:
        if task is self.task:
            return step.logits
        with mixed_precision(step.logits.device):
            return self.model.head.answer(step.features, task)


def build_teacher_loss(context: StageContext, *, folder: Path | None = None) -> TeacherLoss:
    """Open a stage's teachers of masks and classes, ask them about its training pictures, and keep only their answers.

    Args:
        context: of the stage; its `teachers` say whom to ask.
        folder: keeps the answers on disk, for runs to come and for this one when it is resumed.

    Raises:
        TeacherError: a teacher cannot be had, or cannot teach its task.
    """
    dataset = context.datasets[context.stage.task]
    lessons = []
    for config in context.stage.teachers:
        task = config.task or context.stage.task
        if task is Task.DETECTION:  # whose teachers are asked in every step: training.teachers.points
            continue
        teacher = open_teacher(config.source, task, taxonomy=context.taxonomy, device=context.device)
        answers = cache_answers(teacher, dataset, context.taxonomy, folder=folder)
        lessons.append(Lesson(task, answers, config.weight, config.temperature))
    return TeacherLoss(context.model, context.stage.task, lessons)
