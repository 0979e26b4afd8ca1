"""Which methods a stage's config asks for."""

from __future__ import annotations

from training.config import Task
from training.continual.agem import AGem
from training.continual.averaging import StageAveraging
from training.continual.distillation import Distillation
from training.continual.ewc import Ewc
from training.continual.replay import Replay
from training.detection.mask_boxes import MaskBoxes
from training.files import find_cache_folder
from training.hooks.context import StageContext
from training.hooks.hook import Hook
from training.teachers.loss import build_teacher_loss
from training.teachers.points import build_point_loss
from training.teachers.storage import ANSWERS_NAME


def build_hooks(context: StageContext) -> list[Hook]:
    """Build the methods that are on, always in the same order.

    What teaches comes first; masks teach detection only where a class of theirs is one of its. There are none against
    forgetting where nothing can be forgotten: in the first stage, and where all that earlier tasks read is frozen.

    Raises:
        TeacherError: a teacher cannot be had, or cannot teach its task.
    """
    stage, model = context.stage, context.model
    answers = find_cache_folder(ANSWERS_NAME)
    hooks: list[Hook] = []
    if any((one.task or stage.task) is not Task.DETECTION for one in stage.teachers):
        hooks.append(build_teacher_loss(context, folder=answers))
    if points := build_point_loss(context):
        hooks.append(points)
    if stage.mask_boxes and context.taxonomy.same:
        hooks.append(MaskBoxes(context))
    moving = any(stage.lr_factor(part) for part in model.parts() if part != str(stage.task))
    if not context.learned or not moving:
        return hooks
    if any(stage.ewc.strength.values()):
        hooks.append(Ewc(model, context.anchors, stage.ewc, context.device))
    if stage.distillation.outputs or stage.distillation.features:
        hooks.append(Distillation(context))
    if stage.replay.pictures and (stage.replay.labels or stage.replay.outputs):
        hooks.append(Replay(context))
    if stage.agem.pictures:
        hooks.append(AGem(context))
    if stage.averaging:
        hooks.append(StageAveraging(model.shared_parameters(), context.before, stage.averaging))
    return hooks
