"""After a stage: what later stages that hold on to its task by elastic weight consolidation will need."""

from __future__ import annotations

from collections.abc import Mapping

from training.continual.ewc import consolidate
from training.continual.fisher import estimate_importance
from training.hooks.anchor import Anchor
from training.hooks.context import StageContext


def add_anchor(context: StageContext, anchors: Mapping[str, Anchor]) -> dict[str, Anchor]:
    """Add the anchor of the stage's task if a later stage protects it, as the first that does asks for it.

    Args:
        context: the stage, at its end; what was frozen in it is free to learn afterwards if an anchor is made.
        anchors: so far.
    """
    task, later = context.stage.task, context.config.stages[len(context.learned) + 1 :]
    protector = next((stage.ewc for stage in later if task in stage.ewc.strength), None)
    if protector is None:
        return dict(anchors)
    context.model.begin_stage()  # what was frozen in this stage may learn in a later one
    importance = estimate_importance(context, protector.fisher)
    return consolidate(anchors, task, context.model.shared_parameters(), importance, protector)
