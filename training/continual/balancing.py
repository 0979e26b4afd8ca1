"""One gradient from several losses: the loss of the new task, and those that hold on to the earlier ones or teach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.config import ConfigError, StageConfig
from training.continual.surgery import Surgery
from training.continual.weighing import GradNormWeights, UncertaintyWeights, Weights
from training.models.multitask import MultiTaskModel

_GRADVAC_MOMENTUM = 0.01  # an average over about 100 steps


@dataclass(frozen=True, slots=True, eq=False)
class Balancer:
    """Weighs the losses, goes backward, and resolves conflicts between their gradients where surgery is on.

    Attributes:
        weights: of the losses.
        surgery: what happens to gradients that conflict; None: they are added up in one backward pass.
        shared: trainable parameters whose gradients are operated on; only needed for surgery.
        others: all other trainable parameters: their gradients are added up; only needed for surgery.
    """

    weights: Weights
    surgery: Surgery | None = None
    shared: Sequence[nn.Parameter] = ()
    others: Sequence[nn.Parameter] = ()

    def backward(self, totals: Mapping[str, Tensor]) -> float:
        """Add the gradient of the weighted losses to `.grad` of the parameters; surgery sees the weighted ones.

        Args:
            totals: scalars by name; at least one, and any of the names may be missing.

        Returns:
            The weighted sum of the losses.
        """
        weights = self.weights.weigh(totals)
        weighted = {name: weights[name] * total for name, total in totals.items()}
        loss = torch.stack(list(weighted.values())).sum()
        if self.surgery is None:
            loss.backward()  # type: ignore[no-untyped-call]  # torch's, untyped
        else:
            self._operate({name: part for name, part in weighted.items() if part.requires_grad}, self.surgery)
        return loss.item()

    @torch.no_grad()
    def _operate(self, losses: Mapping[str, Tensor], surgery: Surgery) -> None:
        parameters = (*self.shared, *self.others)
        by_loss = [
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in losses.values()
        ]
        count = len(self.shared)
        rows = torch.stack([_flatten(parts[:count], self.shared) for parts in by_loss])
        shares = surgery.compute_shares(list(losses), (rows @ rows.T).cpu().numpy()).tolist()
        for index, (parameter, *parts) in enumerate(zip(parameters, *by_loss, strict=True)):
            factors = shares if index < count else [1.0] * len(parts)
            for factor, part in zip(factors, parts, strict=True):
                # What no loss reaches keeps None: optimisers pass it over, where zeros would let the weights decay.
                if part is not None:
                    parameter.grad = factor * part if parameter.grad is None else parameter.grad + factor * part

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""
        return {"weights": self.weights.state_dict(), "surgery": self.surgery.state_dict() if self.surgery else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.weights.load_state_dict(state["weights"])
        if self.surgery:
            self.surgery.load_state_dict(state["surgery"])


def _flatten(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    """One vector, in double precision: inner products of nearly opposite gradients are small next to their terms."""
    found = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(like) if part is None else part).double().flatten() for part, like in found])


def build_balancer(config: StageConfig, model: MultiTaskModel, names: Sequence[str]) -> Balancer:
    """Build what the stage asks for.

    Args:
        config: of the stage.
        model: with what does not learn in this stage already frozen.
        names: of all losses that may come.

    Raises:
        ConfigError: gradnorm, and nothing shared learns.
    """
    shared = list(model.shared_parameters().values())
    ours = {id(parameter) for parameter in shared}
    others = [each for each in model.parameters() if each.requires_grad and id(each) not in ours]
    surgery = None
    if config.surgery != "none" and shared:  # else nothing can conflict
        surgery = Surgery(_GRADVAC_MOMENTUM if config.surgery == "gradvac" else 0.0)
    return Balancer(_build_weights(config, model, names), surgery, shared=shared, others=others)


def _build_weights(config: StageConfig, model: MultiTaskModel, names: Sequence[str]) -> Weights:
    if config.balance == "uncertainty":
        return UncertaintyWeights(names)
    if config.balance == "gradnorm":
        return GradNormWeights(names, _find_last_shared(model))
    return Weights()


def _find_last_shared(model: MultiTaskModel) -> list[nn.Parameter]:
    """The unified head's stem. Branches read many layers, beside the neck too: then everything shared."""
    shared = model.shared_parameters()
    if not shared:
        raise ConfigError("balance gradnorm compares gradients of shared weights, and none of them learns in the stage")
    stem = [parameter for name, parameter in shared.items() if name.startswith("head.stem.")]
    return stem or list(shared.values())
