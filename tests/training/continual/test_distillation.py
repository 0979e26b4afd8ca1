import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training.continual.stage import (
    HEADS,
    SIZE,
    disturb,
    find_gradients,
    make_config,
    make_context,
    make_step,
)
from training.config import Config, Task
from training.continual.distillation import Distillation, feature_distillation, output_distillation
from training.detection.schemes import build_scheme

GRID = SIZE // 32
POINTS = sum((SIZE // stride) ** 2 for stride in (8, 16, 32))
LOGITS = {
    ("unified", Task.SEGMENTATION): (2, 3, GRID, GRID),
    ("unified", Task.CLASSIFICATION): (2, 4),
    ("unified", Task.DETECTION): (2, 5 + 2, GRID, GRID),
    ("branches", Task.DETECTION): (2, POINTS, 4 * 5 + 2),
}


def draw(head: str, task: Task, seed: int) -> Tensor:
    return 2 * torch.randn(LOGITS[head, task], generator=torch.manual_seed(seed))


def compare(task: Task, student: Tensor, teacher: Tensor, *, head: str = "unified", temperature: float = 2.0) -> Tensor:
    scheme = build_scheme(make_config(head=head))
    return output_distillation(task, student, teacher, scheme, temperature=temperature, input_size=SIZE)


def lwf(*, head: str = "unified", **weights: float) -> Config:
    return make_config({"distillation": weights}, head=head)


@pytest.mark.parametrize(("head", "task"), LOGITS)
def test_who_agrees_with_the_teacher_loses_nothing_and_is_pulled_nowhere(head: str, task: Task) -> None:
    teacher = draw(head, task, 0)
    student = teacher.clone().requires_grad_()
    loss = compare(task, student, teacher, head=head)
    (pull,) = torch.autograd.grad(loss, student)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert pull.abs().max() < 1e-5


@pytest.mark.parametrize(("head", "task"), LOGITS)
def test_who_follows_the_gradient_comes_to_agree(head: str, task: Task) -> None:
    teacher, student = draw(head, task, 0), draw(head, task, 1).requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.1)
    losses = []
    for _ in range(150):
        loss = compare(task, student, teacher, head=head)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's, untyped
        optimizer.step()
    assert losses[0] > 0.1
    assert losses[-1] < losses[0] / 20


def test_a_hand_worked_divergence_at_a_temperature() -> None:
    # At T = 2 the logits are log 3 and 0: the teacher says 3/4 and 1/4, the student half and half.
    teacher, student = torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)
    wanted = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert compare(Task.CLASSIFICATION, student, teacher).item() == pytest.approx(wanted)


def test_segmentation_is_the_mean_over_cells() -> None:
    teacher, student = draw("unified", Task.SEGMENTATION, 0), draw("unified", Task.SEGMENTATION, 1)
    wanted = F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="sum") / (2 * GRID * GRID)
    torch.testing.assert_close(compare(Task.SEGMENTATION, student, teacher, temperature=1.0), wanted)


def point_logits(score: float) -> Tensor:
    """One picture in which no point sees anything, but the first: one class with `score`, a box of 2 strides a side."""
    logits = torch.zeros(1, POINTS, 4 * 5 + 2)
    logits[..., -2:] = -20
    logits[0, 0, -2] = math.log(score / (1 - score))
    return logits


def test_points_are_held_to_their_scores_by_the_divergence_of_bernoulli() -> None:
    found = compare(Task.DETECTION, point_logits(0.2), point_logits(0.6), head="branches")
    assert found.item() == pytest.approx(0.6 * math.log(0.6 / 0.2) + 0.4 * math.log(0.4 / 0.8), rel=1e-4)


@pytest.mark.parametrize(("score", "held"), [(0.11, True), (0.09, False)])
def test_boxes_are_held_only_where_the_teacher_is_sure(score: float, held: bool) -> None:
    teacher = point_logits(score)
    student = teacher.clone()
    student[..., :20] = torch.linspace(0, 3, 20)  # other boxes everywhere
    student.requires_grad_()
    (pull,) = torch.autograd.grad(compare(Task.DETECTION, student, teacher, head="branches"), student)
    assert bool(pull[0, 0, :20].any()) is held
    assert not pull[0, 1:, :20].any()


def test_a_hand_worked_difference_of_boxes() -> None:
    teacher = point_logits(0.5)
    teacher[0, 0, :20] = torch.tensor([-100.0, -100.0, 0.0, -100.0, -100.0]).repeat(4)  # 2 strides a side
    student = teacher.clone()
    student[0, 0, :5] = torch.tensor([-100.0, -100.0, -100.0, -100.0, 0.0])  # to the left 4: smooth L1 is 2 - 0.5
    student[0, 0, 10:15] = torch.tensor([-100.0, 0.0, 0.0, -100.0, -100.0])  # to the right 1.5: half of 0.5^2
    assert compare(Task.DETECTION, student, teacher, head="branches").item() == pytest.approx(1.625, abs=1e-4)


def test_cells_are_held_to_class_and_confidence() -> None:
    teacher = torch.full((1, 7, GRID, GRID), -20.0)
    teacher[0, :, 0, 0] = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, math.log(3), 0.0])  # half sure, classes 3 : 1
    student = teacher.clone()
    student[0, 5, 0, 0] = 0
    wanted = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert compare(Task.DETECTION, student, teacher, temperature=1.0).item() == pytest.approx(wanted, abs=1e-5)
    # Where there is nothing, the class means nothing.
    student = teacher.clone()
    student[0, 5, 1, 1] = 3
    assert compare(Task.DETECTION, student, teacher, temperature=1.0).item() == pytest.approx(0, abs=1e-5)


def test_features_that_vanish_cost_1_whatever_their_size() -> None:
    teacher = [torch.rand(1, 2, 4, 4), 1000 * torch.rand(1, 2, 2, 2)]
    assert feature_distillation([0 * level for level in teacher], teacher).item() == pytest.approx(1)
    assert feature_distillation(teacher, teacher) == 0
    assert feature_distillation([1.5 * level for level in teacher], teacher).item() == pytest.approx(0.25)


@pytest.mark.parametrize("head", HEADS)
def test_nothing_is_lost_until_something_has_moved(head: str) -> None:
    context = make_context(lwf(head=head, outputs=1.0, features=1.0))
    hook = Distillation(context)
    still = hook.losses(make_step(context.model))
    assert still.keys() == {"lwf/segmentation", "lwf/detection", "lwf/features"}
    assert all(value.item() == pytest.approx(0, abs=1e-5) for value in still.values())
    disturb(context.model, "backbone.")
    moved = hook.losses(make_step(context.model))
    assert all(value > 1e-3 for name, value in moved.items() if name != "lwf/detection")
    assert moved["lwf/detection"] > 10 * still["lwf/detection"].abs()


@pytest.mark.parametrize("head", HEADS)
def test_the_network_is_pulled_and_the_teacher_stands(head: str) -> None:
    context = make_context(lwf(head=head, outputs=1.0))
    hook = Distillation(context)
    disturb(context.model, "backbone.")
    taught = {name: value.clone() for name, value in hook._teacher.state_dict().items()}
    for part in hook.losses(make_step(context.model)).values():
        assert any(name.startswith("backbone.") for name in find_gradients(part, context.model))
    torch.stack(list(hook.losses(make_step(context.model)).values())).sum().backward()  # type: ignore[no-untyped-call]  # torch's
    assert all(parameter.grad is None for parameter in hook._teacher.parameters())
    context.model.train()
    assert not any(module.training for module in hook._teacher.modules())
    assert all(torch.equal(value, taught[name]) for name, value in hook._teacher.state_dict().items())
    assert all(torch.equal(value, context.before[name]) for name, value in taught.items())


def test_the_teacher_is_the_network_before_the_stage_also_when_a_killed_run_goes_on() -> None:
    context = make_context(lwf(outputs=1.0))
    disturb(context.model)  # the weights of some epoch in the middle
    hook = Distillation(context)
    assert all(torch.equal(value, context.before[name]) for name, value in hook._teacher.state_dict().items())
    assert hook.losses(make_step(context.model))["lwf/segmentation"] > 1e-3


def test_the_weights_weigh() -> None:
    once, twice = make_context(lwf(outputs=1.0, features=1.0)), make_context(lwf(outputs=2.0, features=3.0))
    found = []
    for context in (once, twice):
        disturb(context.model, "backbone.")
        found.append(Distillation(context).losses(make_step(context.model)))
    assert found[1]["lwf/segmentation"].item() == pytest.approx(2 * found[0]["lwf/segmentation"].item())
    assert found[1]["lwf/features"].item() == pytest.approx(3 * found[0]["lwf/features"].item())


@pytest.mark.parametrize(
    ("weights", "names"),
    [({"features": 1.0}, {"lwf/features"}), ({"outputs": 1.0}, {"lwf/segmentation", "lwf/detection"})],
)
def test_what_has_no_weight_is_not_asked_for(weights: dict[str, float], names: set[str]) -> None:
    context = make_context(make_config({"distillation": weights}))
    assert Distillation(context).losses(make_step(context.model)).keys() == names
