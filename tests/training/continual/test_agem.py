import pytest
import torch
from torch import Tensor, nn

from tests.training.continual.stage import HEADS, find_gradients, make_config, make_context, make_step
from training.config import Task
from training.continual.agem import AGem, project_gradients
from training.hooks.context import StageContext
from training.hooks.hook import Step


def with_gradients(*gradients: list[float] | None) -> list[nn.Parameter]:
    parameters = []
    for gradient in gradients:
        parameter = nn.Parameter(torch.zeros(2))
        parameter.grad = None if gradient is None else torch.tensor(gradient)
        parameters.append(parameter)
    return parameters


def gradients_of(parameters: list[nn.Parameter]) -> list[list[float] | None]:
    return [None if parameter.grad is None else parameter.grad.tolist() for parameter in parameters]


def test_a_gradient_that_agrees_is_left_alone() -> None:
    parameters = with_gradients([1.0, 2.0], [3.0, -4.0])
    project_gradients(parameters, [torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0])])
    assert gradients_of(parameters) == [[1.0, 2.0], [3.0, -4.0]]


def test_a_hand_worked_conflict() -> None:
    # g . r = -2 - 6 = -8 over both parameters together, r . r = 4 + 4 = 8: g + r.
    parameters = with_gradients([1.0, 5.0], [3.0, 7.0])
    project_gradients(parameters, [torch.tensor([-2.0, 0.0]), torch.tensor([-2.0, 0.0])])
    assert gradients_of(parameters) == [[-1.0, 5.0], [1.0, 7.0]]


def test_agreement_in_one_parameter_can_outweigh_conflict_in_another() -> None:
    parameters = with_gradients([1.0, 0.0], [-1.0, 0.0])
    project_gradients(parameters, [torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0])])
    assert gradients_of(parameters) == [[1.0, 0.0], [-1.0, 0.0]]


def test_what_one_side_does_not_reach_counts_as_zero() -> None:
    # g = (1, 0 | none | 2, 3), r = (-1, 0 | 1, 0 | none): g . r = -1, r . r = 2.
    parameters = with_gradients([1.0, 0.0], None, [2.0, 3.0])
    project_gradients(parameters, [torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0]), None])
    assert gradients_of(parameters) == [[0.5, 0.0], [0.5, 0.0], [2.0, 3.0]]


def test_without_a_common_parameter_nothing_happens() -> None:
    parameters = with_gradients(None, [1.0, 1.0])
    project_gradients(parameters, [torch.tensor([1.0, 1.0]), None])
    assert gradients_of(parameters) == [None, [1.0, 1.0]]


def prepare(head: str, sign: float) -> tuple[StageContext, AGem, Step, dict[str, Tensor]]:
    """The gradient of the remembered loss, and a step whose gradient is `sign` times that with something beside."""
    context = make_context(make_config({"agem": {"pictures": 3, "batch": 6}}, head=head))
    hook, model = AGem(context), context.model
    drawn = hook._memory.draw(0.5)
    loss = torch.stack([one.share * hook._memory.label_loss(one, hook._memory.answer(one)) for one in drawn]).sum()
    reference = find_gradients(loss, model)
    for index, (name, parameter) in enumerate(model.named_parameters()):
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=torch.manual_seed(index))
            parameter.grad = sign * reference.get(name, torch.zeros_like(parameter)) + 1e-3 * noise
    return context, hook, make_step(model), reference


def dot(context: StageContext, reference: dict[str, Tensor]) -> float:
    named = dict(context.model.named_parameters())
    products = [(named[name].grad * other).double().sum() for name, other in reference.items()]  # type: ignore[operator]  # all have one
    return float(torch.stack(products).sum())


@pytest.mark.parametrize("head", HEADS)
def test_a_step_against_the_remembered_pictures_becomes_one_that_leaves_them_as_they_are(head: str) -> None:
    context, hook, step, reference = prepare(head, -0.5)
    conflict = dot(context, reference)
    assert conflict < 0
    hook.adjust_gradients(step)
    assert abs(dot(context, reference)) < 1e-4 * abs(conflict)


@pytest.mark.parametrize("head", HEADS)
def test_a_step_with_the_remembered_pictures_stays_as_it_is(head: str) -> None:
    context, hook, step, _ = prepare(head, 0.5)
    before = {name: p.grad.clone() for name, p in context.model.named_parameters() if p.grad is not None}
    hook.adjust_gradients(step)
    assert all(torch.equal(p.grad, before[name]) for name, p in context.model.named_parameters() if p.grad is not None)
    assert {name for name, p in context.model.named_parameters() if p.grad is not None} == before.keys()


def test_it_works_after_the_learner_has_gone_backward() -> None:
    context = make_context(make_config({"agem": {"pictures": 3, "batch": 2}}))
    hook, model = AGem(context), context.model
    step = make_step(model)
    for factor in (1.0, -1.0):  # one of the two conflicts
        model.zero_grad(set_to_none=True)
        logits = model.head.answer(model.extract(step.batch.images), Task.CLASSIFICATION)
        (factor * logits.square().sum()).backward()  # type: ignore[no-untyped-call]  # torch's, untyped
        hook.adjust_gradients(step)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert hook.losses(step) == {}
