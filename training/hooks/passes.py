"""How methods run a network beside the training step, without a trace in the one that learns."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from training.models.multitask import MultiTaskModel


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run the network as in serving, then let it be in the mode in which it was.

    No dropout, and batch-norm neither moves its statistics nor takes those of a handful of pictures.
    """
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def mixed_precision(device: torch.device) -> torch.autocast:
    """Compute as the training step does: in bfloat16 where that is faster, on CUDA."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def make_frozen_copy(model: MultiTaskModel, state: Mapping[str, Tensor]) -> MultiTaskModel:
    """Copy a network with other weights; the copy never learns, and stays in evaluation mode."""
    frozen = copy.deepcopy(model)
    frozen.load_state_dict(state)
    return frozen.requires_grad_(requires_grad=False).eval()
