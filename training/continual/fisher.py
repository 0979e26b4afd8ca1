"""How important each shared weight is to a task that has been learned: the diagonal of its Fisher information."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def estimate_fisher(
    model: nn.Module, parameters: dict[str, nn.Parameter], losses: Iterable[Callable[[], Tensor]]
) -> dict[str, Tensor]:
    """Estimate the empirical Fisher information: the mean over samples of the squared gradient of each one's loss.

    One sample at a time, in evaluation mode. The square of a batch's mean gradient, which is often used in its place,
    is too small by about the batch size and noisier (van de Ven, arXiv:2502.11756, sec. 3).

    Args:
        model: put into evaluation mode for the time of the call.
        parameters: what to weigh, by name; the shared ones.
        losses: one function per sample; each returns that sample's loss, a scalar.

    Returns:
        For each parameter a tensor of its shape, >= 0, scaled so that the mean over all of them is 1:
        lambda then means the same whatever the task and its loss.

    Raises:
        ValueError: there is no sample.
    """
    was_training = model.training
    model.eval()
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    count = 0
    try:
        for compute_loss in losses:
            # Not .backward(): gradients that somebody else is gathering stay as they are.
            gradients = torch.autograd.grad(compute_loss(), list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    sums[name] += gradient.detach() ** 2
            count += 1
    finally:
        model.train(was_training)
    if not count:
        raise ValueError("Fisher information needs at least one sample, got none")
    mean = sum(float(value.sum()) for value in sums.values()) / sum(value.numel() for value in sums.values())
    scale = 1 / mean if mean > 0 else 0.0  # no gradient anywhere: nothing is important
    return {name: value * scale for name, value in sums.items()}
