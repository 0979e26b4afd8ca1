from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.training.fakes import make_images, make_model
from training.continual.fisher import estimate_fisher

INPUTS = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0], [2.0, 0.5, -1.0]])


class Linear(nn.Module):
    """w . x + b with values that are known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
        self.bias = nn.Parameter(torch.tensor([0.25]))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs * self.weight).sum() + self.bias[0]


def logistic_losses(model: Linear, labels: list[float]) -> Iterator[Callable[[], Tensor]]:
    def loss_of(index: int) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(INPUTS[index]), torch.tensor(labels[index]))

    return (partial(loss_of, index) for index in range(len(labels)))


def test_logistic_regression_by_hand() -> None:
    model, labels = Linear(), [1.0, 0.0, 1.0]
    found = estimate_fisher(model, dict(model.named_parameters()), logistic_losses(model, labels))
    # The gradient of one sample is (p - y) x for the weights, p - y for the bias.
    residuals = torch.stack([model(x).sigmoid() for x in INPUTS]).detach() - torch.tensor(labels)
    weight = (residuals[:, None] * INPUTS).square().mean(dim=0)
    bias = residuals.square().mean()
    mean = (weight.sum() + bias) / 4
    torch.testing.assert_close(found["weight"], weight / mean)
    torch.testing.assert_close(found["bias"], (bias / mean)[None])


def test_it_is_not_the_square_of_the_mean_gradient() -> None:
    # Two samples that pull in opposite directions: their mean gradient is zero, each one's is not.
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    pulls = (partial(lambda y: F.mse_loss(model(torch.ones(1)), torch.tensor([y])), y) for y in (1.0, -1.0))
    found = estimate_fisher(model, dict(model.named_parameters()), pulls)
    assert found["weight"].item() == pytest.approx(1.0)


def test_the_mean_over_all_parameters_together_is_1() -> None:
    model = Linear()
    found = estimate_fisher(model, dict(model.named_parameters()), logistic_losses(model, [1.0, 0.0, 1.0]))
    assert torch.cat([value.ravel() for value in found.values()]).mean().item() == pytest.approx(1.0)
    assert found["bias"].item() != pytest.approx(1.0)


def test_the_scale_and_the_number_of_samples_do_not_change_it() -> None:
    model = Linear()
    once = estimate_fisher(model, dict(model.named_parameters()), logistic_losses(model, [1.0, 0.0, 1.0]))
    losses = [*logistic_losses(model, [1.0, 0.0, 1.0])] * 2
    louder = [partial(lambda loss: 7 * loss(), loss) for loss in losses]
    twice = estimate_fisher(model, dict(model.named_parameters()), louder)
    torch.testing.assert_close(twice, once)


def test_only_the_parameters_that_were_asked_for_are_weighed() -> None:
    model = Linear()
    found = estimate_fisher(model, {"bias": model.bias}, logistic_losses(model, [1.0]))
    assert list(found) == ["bias"]


def test_a_parameter_that_the_loss_does_not_read_is_not_important() -> None:
    model, idle = Linear(), nn.Parameter(torch.ones(2, 2))
    found = estimate_fisher(model, {"weight": model.weight, "idle": idle}, logistic_losses(model, [1.0]))
    assert torch.equal(found["idle"], torch.zeros(2, 2))
    assert found["weight"].any()


def test_where_nothing_pulls_nothing_is_important() -> None:
    model = Linear()
    found = estimate_fisher(model, {"weight": model.weight}, [lambda: 0 * model.weight.sum()])
    assert torch.equal(found["weight"], torch.zeros(3))


def test_no_sample_is_an_error() -> None:
    model = Linear()
    with pytest.raises(ValueError, match="at least one sample"):
        estimate_fisher(model, {"weight": model.weight}, [])


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training: bool) -> None:
    model = make_model().train(training)
    model.head.predict.weight.grad = torch.ones_like(model.head.predict.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = []

    def loss() -> Tensor:
        modes.append(model.training)
        return model(make_images(1)).classification.square().sum()  # type: ignore[no-any-return]  # Module call

    found = estimate_fisher(model, model.shared_parameters(), [loss, loss])
    assert modes == [False, False]
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.head.predict.weight.grad, torch.ones_like(model.head.predict.weight))
    assert all(parameter.grad is None for parameter in model.shared_parameters().values())
    assert found.keys() == model.shared_parameters().keys()
    assert all((value >= 0).all() for value in found.values())


def test_a_sample_that_fails_leaves_the_network_training() -> None:
    model = Linear().train()

    def fail() -> Tensor:
        raise OSError("a picture is damaged")

    with pytest.raises(OSError, match="damaged"):
        estimate_fisher(model, {"weight": model.weight}, [fail])
    assert model.training
