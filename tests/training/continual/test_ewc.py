import pytest
import torch
from torch import Tensor, nn

from training.continual.ewc import Anchor, ewc_penalty, make_anchor


def parameters(**values: list[float]) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.tensor(value)) for name, value in values.items()}


def importance(**values: list[float]) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_standing_at_the_anchor_costs_nothing_and_pulls_nowhere() -> None:
    weights = parameters(a=[1.0, -2.0], b=[3.0])
    penalty = ewc_penalty(weights, make_anchor(weights, importance(a=[1.0, 1.0], b=[5.0])))
    assert penalty == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(penalty, list(weights.values())))


def test_a_hand_worked_penalty_and_its_gradient() -> None:
    weights = parameters(a=[1.0, 2.0], b=[3.0])
    anchor = Anchor(importance(a=[0.0, 4.0], b=[1.0]), importance(a=[2.0, 1.0], b=[0.5]))
    penalty = ewc_penalty(weights, anchor)
    # Half of 2 * 1^2 + 1 * 2^2 + 0.5 * 2^2.
    assert penalty.item() == pytest.approx(4.0)
    penalty.backward()  # type: ignore[no-untyped-call]  # torch's, untyped
    # Importance times distance.
    assert weights["a"].grad is not None
    assert weights["b"].grad is not None
    assert weights["a"].grad.tolist() == [2.0, -2.0]
    assert weights["b"].grad.tolist() == [1.0]


def test_twice_as_far_costs_four_times_as_much() -> None:
    weights = parameters(a=[0.0, 0.0])
    anchor = make_anchor(weights, importance(a=[0.7, 1.3]))
    step = torch.tensor([0.3, -0.9])
    once, twice = (ewc_penalty({"a": nn.Parameter(k * step)}, anchor).item() for k in (1, 2))
    assert twice == pytest.approx(4 * once)


def test_a_weight_of_no_importance_moves_freely() -> None:
    weights = parameters(a=[5.0, 1.0])
    anchor = Anchor(importance(a=[-99.0, 1.0]), importance(a=[0.0, 2.0]))
    assert ewc_penalty(weights, anchor) == 0


def test_the_anchor_stays_where_the_weights_were() -> None:
    weights = parameters(a=[1.0, 2.0])
    anchor = make_anchor(weights, importance(a=[1.0, 1.0]))
    with torch.no_grad():
        weights["a"].add_(3)
    assert anchor.parameters["a"].tolist() == [1.0, 2.0]
    assert not anchor.parameters["a"].requires_grad
    assert ewc_penalty(weights, anchor).item() == pytest.approx(9.0)


def test_an_anchor_on_another_device_is_the_same_anchor() -> None:
    anchor = Anchor(importance(a=[1.0]), importance(a=[2.0])).to(torch.device("cpu"))
    assert (anchor.parameters["a"].item(), anchor.importance["a"].item()) == (1.0, 2.0)
