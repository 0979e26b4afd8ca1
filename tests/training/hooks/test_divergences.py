import math

import pytest
import torch

from tests.training.fakes import random_logits
from training.hooks.divergences import compute_divergence


def test_a_divergence_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0]])
    wanted = torch.tensor([[math.log(3), 0.0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert compute_divergence(logits, wanted, 1.0).tolist() == pytest.approx([expected])
    # At temperature 2 the teacher says sqrt(3) to 1.
    p = math.sqrt(3) / (1 + math.sqrt(3))
    expected = 4 * (p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5))
    assert compute_divergence(logits, wanted, 2.0).tolist() == pytest.approx([expected])


def test_agreement_costs_nothing_whatever_is_added_to_all_classes() -> None:
    logits = random_logits(3, 5, 2, 2)
    assert compute_divergence(logits, logits + 7, 3.0).abs().max() < 1e-5
    assert (compute_divergence(logits, random_logits(3, 5, 2, 2, seed=1), 3.0) > 0).all()


def test_the_gradient_is_the_difference_of_probabilities() -> None:
    logits, wanted = random_logits(2, 5).requires_grad_(), random_logits(2, 5, seed=1)
    (gradient,) = torch.autograd.grad(compute_divergence(logits, wanted, 2.0).sum(), logits)
    torch.testing.assert_close(gradient, 2 * ((logits / 2).softmax(dim=1) - (wanted / 2).softmax(dim=1)))
