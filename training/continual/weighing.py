"""How much each of several losses counts: the same throughout, or as much as training so far suggests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

_LEARNING_RATE = 0.025
_LARGEST_LOG = 5.0
_SMALLEST_WEIGHT = 0.01


class Weights:
    """How much each loss counts; here every one as it comes."""

    def weigh(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        """Give the weights of this step's losses, and learn from the losses what they shall be in the next.

        Args:
            totals: scalars by name, with their graphs, which stay; names may be missing.
        """
        return dict.fromkeys(totals, 1.0)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""


class _LearnedWeights(Weights):
    """One number a loss, moved by an Adam of its own; on the CPU, in double precision."""

    def __init__(self, names: Sequence[str], start: float) -> None:
        self._values = {
            name: torch.tensor(start, dtype=torch.float64).requires_grad_()  # one each: Adam skips those without .grad
            for name in names
        }
        self._optimizer = Adam(self._values.values(), lr=_LEARNING_RATE)

    def _move(self, gradients: Mapping[str, float]) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        for name, gradient in gradients.items():
            self._values[name].grad = torch.tensor(gradient, dtype=torch.float64)
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""
        values = {name: value.item() for name, value in self._values.items()}
        return {"values": values, "optimizer": self._optimizer.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        for name, value in self._values.items():
            value.fill_(state["values"][name])
        self._optimizer.load_state_dict(state["optimizer"])


class UncertaintyWeights(_LearnedWeights):
    """Each loss L is divided by its learned variance exp(s) (Kendall et al., arXiv:1705.07115, sec. 3.2).

    What s minimises is exp(-s) * L + s: twice the paper's term for regression, so that training begins with the plain
    sum. For a constant L the minimum is at s = log L, where each weighted loss is 1. Because of that, a loss that is
    about to vanish would get any weight; s is kept within -5..5, the weights within 0.0067..148.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names, start=0.0)

    def weigh(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        """Give exp(-s) of each loss, then move s."""
        weights = {name: math.exp(-self._values[name].item()) for name in totals}
        self._move({name: 1 - weights[name] * total.item() for name, total in totals.items()})
        for value in self._values.values():
            value.detach().clamp_(-_LARGEST_LOG, _LARGEST_LOG)
        return weights


class GradNormWeights(_LearnedWeights):
    """Losses that have fallen little get larger gradients (GradNorm: Chen et al., arXiv:1711.02257, sec. 3.2).

    The weights w, whose sum is the number of names, minimise the sum over the losses of
    |w * norm - mean(w * norm) * (ratio / mean(ratio)) ** alpha|, the second term taken as constant; `norm` is that of
    the loss's gradient, `ratio` is the loss by what it was when first seen.

    Unlike in the paper, no ratio is over 1, the value for a loss that has not fallen: what holds on to earlier tasks
    begins at 0, or nearly, and grows. No weight is under 0.01, for Adam's steps could lead below 0.
    """

    def __init__(self, names: Sequence[str], parameters: Sequence[nn.Parameter], alpha: float = 1.5) -> None:
        """Begin with equal weights.

        Args:
            names: of all losses that may come.
            parameters: the gradients are taken with respect to these; at least one.
            alpha: how strongly the gradients are pulled apart; 0 makes them equal.
        """
        super().__init__(names, start=1.0)
        self._parameters = parameters
        self._alpha = alpha
        self._first: dict[str, float] = {}

    def weigh(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        """Give w of each loss, then move w."""
        weights = {name: self._values[name].item() for name in totals}
        norms = {name: self._compute_norm(total) for name, total in totals.items()}
        ratios = {name: self._compute_ratio(name, total.item()) for name, total in totals.items()}
        mean_norm = sum(weights[name] * norms[name] for name in totals) / len(totals)
        mean_ratio = sum(ratios.values()) / len(totals) or 1.0  # all losses 0: no norm either
        gradients = {}
        for name, norm in norms.items():
            excess = weights[name] * norm - mean_norm * (ratios[name] / mean_ratio) ** self._alpha
            gradients[name] = math.copysign(norm, excess) if excess else 0.0
        self._move(gradients)
        self._normalise()
        return weights

    def _compute_norm(self, total: Tensor) -> float:
        if not total.requires_grad:
            return 0.0
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
            total, self._parameters, retain_graph=True, allow_unused=True
        )
        return nn.utils.get_total_norm([part for part in gradients if part is not None]).item()

    def _compute_ratio(self, name: str, loss: float) -> float:
        first = self._first.setdefault(name, loss)
        return min(1.0, loss / first) if first > 0 else 1.0

    @torch.no_grad()
    def _normalise(self) -> None:
        values = list(self._values.values())
        scale = len(values) / sum(value.clamp_(min=_SMALLEST_WEIGHT).item() for value in values)
        for value in values:
            value.mul_(scale)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""
        return {**super().state_dict(), "first": dict(self._first)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        super().load_state_dict(state)
        self._first = dict(state["first"])
