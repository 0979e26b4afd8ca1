"""A-GEM: a step for the new task may not, to first order, undo what remembered pictures have taught."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.continual.memory import Memory
from training.hooks.context import StageContext
from training.hooks.hook import Hook, Step


def project_gradients(parameters: Sequence[nn.Parameter], reference: Sequence[Tensor | None]) -> None:
    """Where the gradient g conflicts with the reference r, g . r < 0, make it orthogonal to it: g - (g . r / r . r) r.

    Chaudhry et al., arXiv:1812.00420, eq. 11. Both are vectors over all parameters together.

    Args:
        parameters: their `grad` is changed; None counts as 0.
        reference: the gradient of the remembered pictures' loss; None counts as 0.
    """
    pairs = [(parameter, other) for parameter, other in zip(parameters, reference, strict=True) if other is not None]
    products = [(parameter.grad * other).sum() for parameter, other in pairs if parameter.grad is not None]
    if not products or (product := torch.stack(products).sum()) >= 0:
        return
    scale = product / torch.stack([other.square().sum() for _, other in pairs]).sum()
    for parameter, other in pairs:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad -= scale * other


class AGem(Hook):
    """In every step, the gradient is projected so that it does not point against that of a few remembered pictures."""

    name = "agem"

    def __init__(self, context: StageContext) -> None:
        """Choose the pictures."""
        config = context.stage.agem
        self._model = context.model
        self._memory = Memory(context, pictures=config.pictures, batch=config.batch)

    def adjust_gradients(self, step: Step) -> None:
        """Project the gradient of everything that learns."""
        parts = [
            remembered.share * self._memory.label_loss(remembered, self._memory.answer(remembered))
            for remembered in self._memory.draw(step.progress)
        ]
        parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        # Not .backward(): it would add to the gradients that are to be projected.
        reference = torch.autograd.grad(torch.stack(parts).sum(), parameters, allow_unused=True)
        project_gradients(parameters, reference)
