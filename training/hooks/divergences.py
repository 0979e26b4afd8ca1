"""How far what a network says is from what it is to say; both as logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def compute_divergence(logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence from the network's to the teacher's softened probabilities, times temperature ** 2.

    The factor keeps the gradient as large as it is without softening (Hinton et al., arXiv:1503.02531, sec. 2).

    Args:
        logits: [N, C, ...] of the network; gradients flow into them.
        wanted: [N, C, ...] of the teacher.
        temperature: both are divided by it.

    Returns:
        [N, ...], >= 0.
    """
    student, teacher = ((one / temperature).log_softmax(dim=1) for one in (logits, wanted))
    return temperature**2 * F.kl_div(student, teacher, log_target=True, reduction="none").sum(dim=1)


def compute_bernoulli_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """[...] logits to [...] divergences of the student's sigmoid from the teacher's."""
    probability = teacher.sigmoid()
    yes = F.logsigmoid(teacher) - F.logsigmoid(student)
    no = F.logsigmoid(-teacher) - F.logsigmoid(-student)
    return probability * yes + (1 - probability) * no
