"""Elastic weight consolidation: a spring from each important weight to where an earlier task left it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.config import Task
from training.hooks.anchor import Anchor
from training.hooks.hook import Hook, Step
from training.models.multitask import MultiTaskModel
from training.options.stage import EwcConfig

EARLIER = "earlier"  # the one anchor of the online variant


def make_anchor(parameters: Mapping[str, nn.Parameter], importance: dict[str, Tensor]) -> Anchor:
    """Copy the weights as they are now."""
    return Anchor({name: parameter.detach().clone() for name, parameter in parameters.items()}, importance)


def merge_online(old: Anchor, new: Anchor, decay: float) -> Anchor:
    """Make one anchor of two: at the new weights, with the old importance faded (Schwarz et al., arXiv:1805.06370).

    As there, each task's importance is scaled before it is added, here to a mean of 1, so that none counts more for the
    size of its loss; the mean of the sum is larger.

    Args:
        old: of all tasks before.
        new: of the task just learned, over the same parameters.
        decay: how much of the older importance stays, 0..1.

    Raises:
        ValueError: they are not about the same parameters.
    """
    if old.importance.keys() != new.importance.keys():
        strangers = sorted(old.importance.keys() ^ new.importance.keys())
        raise ValueError(f"only anchors of the same parameters can be merged; one of them lacks {strangers}")
    importance = {name: decay * old.importance[name].to(value.device) + value for name, value in new.importance.items()}
    return Anchor(new.parameters, importance)


def consolidate(
    anchors: Mapping[str, Anchor],
    task: Task,
    parameters: Mapping[str, nn.Parameter],
    importance: dict[str, Tensor],
    config: EwcConfig,
) -> dict[str, Anchor]:
    """Add what is to be kept of a task that has just been learned; online, it is merged with all before it.

    Args:
        anchors: so far, by task, or under `EARLIER`.
        task: just learned.
        parameters: the shared weights as they are now.
        importance: of these to the task.
        config: of the stage that protects it.
    """
    new = make_anchor(parameters, importance)
    if not config.online:
        return {**anchors, str(task): new}
    merged = merge_online(anchors[EARLIER], new, config.decay) if EARLIER in anchors else new
    return {**anchors, EARLIER: merged}


def keep_fraction(importance: Mapping[str, Tensor], fraction: float) -> dict[str, Tensor]:
    """Set all but the most important weights to 0; those that stay keep their values.

    Args:
        importance: by name, >= 0.
        fraction: of all weights of all tensors together that stays, at least one of them; 0..1. Of equals, the first.
    """
    values = torch.cat([value.flatten() for value in importance.values()])
    order = values.argsort(descending=True, stable=True)
    values[order[max(1, round(fraction * len(values))) :]] = 0
    parts = torch.split(values, [value.numel() for value in importance.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(importance.items(), parts, strict=True)}


def ewc_penalty(parameters: Mapping[str, nn.Parameter], anchor: Anchor) -> Tensor:
    """Half the sum of importance times squared distance (Kirkpatrick et al., arXiv:1612.00796, eq. 3), lambda left out.

    Args:
        parameters: the shared weights that can move, as they are now; the anchor knows them all, and may know others.
        anchor: of one earlier task.

    Returns:
        A scalar, >= 0; its gradient flows into `parameters`.
    """
    terms = [
        (anchor.importance[name] * (parameter - anchor.parameters[name]) ** 2).sum()
        for name, parameter in parameters.items()
    ]
    return 0.5 * torch.stack(terms).sum()


def ewc_strength(strength: float, config: EwcConfig, progress: float) -> float:
    """Give lambda at a point of the stage: always `strength`, or growing to it from 0 over the first `ramp` of it.

    Args:
        strength: lambda in full.
        config: schedule and ramp.
        progress: of the stage, 0..1.
    """
    return strength * min(1.0, progress / config.ramp) if config.schedule == "progressive" else strength


class Ewc(Hook):
    """A penalty for each anchor that the stage's config gives a strength; online, for the one that there is.

    Online there is one lambda, which all tasks are given.
    """

    name = "ewc"

    def __init__(
        self, model: MultiTaskModel, anchors: Mapping[str, Anchor], config: EwcConfig, device: torch.device
    ) -> None:
        """Prepare the stage.

        Args:
            model: that learns; what can move of it is looked up in every step.
            anchors: of the earlier tasks.
            config: strengths by task, and what is held how.
            device: of the network.
        """
        self._model = model
        self._config = config
        self._strengths = {str(task): strength for task, strength in config.strength.items() if strength}
        if config.online:
            self._strengths = {EARLIER: max(config.strength.values())}
        self._anchors = {label: self._prepare(anchors[label]).to(device) for label in self._strengths}

    def losses(self, step: Step) -> dict[str, Tensor]:
        """One part an anchor: "ewc/segmentation", or "ewc/earlier"; none where no shared weight can move.

        Raises:
            ValueError: a shared weight learns that an anchor does not know.
        """
        shared = self._model.shared_parameters()
        if not shared:
            return {}
        parts = {}
        for label, strength in self._strengths.items():
            if strangers := sorted(shared.keys() - self._anchors[label].parameters.keys()):
                raise ValueError(f"the anchor {label!r} does not know {strangers}, which were frozen when it was made")
            penalty = ewc_penalty(shared, self._anchors[label])
            parts[f"ewc/{label}"] = ewc_strength(strength, self._config, step.progress) * penalty
        return parts

    def _prepare(self, anchor: Anchor) -> Anchor:
        if self._config.fraction == 1:
            return anchor
        return Anchor(anchor.parameters, keep_fraction(anchor.importance, self._config.fraction))
