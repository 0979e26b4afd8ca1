import pytest
import torch
from torch import Tensor, nn

from tests.training.continual.stage import CPU, disturb, find_gradients, make_config, make_context, make_step
from training.config import Config, Task
from training.continual.ewc import (
    EARLIER,
    Ewc,
    consolidate,
    ewc_penalty,
    ewc_strength,
    keep_fraction,
    make_anchor,
    merge_online,
)
from training.hooks.anchor import Anchor
from training.models.multitask import MultiTaskModel
from training.options.stage import EwcConfig


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


def test_weights_that_do_not_learn_now_are_not_counted() -> None:
    anchor = Anchor(importance(a=[0.0], b=[0.0]), importance(a=[1.0], b=[1.0]))
    assert ewc_penalty(parameters(b=[2.0]), anchor).item() == pytest.approx(2.0)


def test_a_hand_worked_merger() -> None:
    old = Anchor(importance(a=[1.0, 2.0]), importance(a=[0.5, 1.5]))
    new = Anchor(importance(a=[3.0, 4.0]), importance(a=[2.0, 0.0]))
    merged = merge_online(old, new, 0.9)
    assert merged.parameters["a"].tolist() == [3.0, 4.0]
    assert merged.importance["a"].tolist() == pytest.approx([2.45, 1.35])


def test_anchors_of_different_weights_are_not_merged() -> None:
    one, other = (Anchor(importance(**{name: [1.0]}), importance(**{name: [1.0]})) for name in ("a", "b"))
    with pytest.raises(ValueError, match=r"one of them lacks \['a', 'b'\]"):
        merge_online(one, other, 0.9)


def test_each_task_gets_an_anchor_of_its_own() -> None:
    anchors: dict[str, Anchor] = {}
    for task, value in ((Task.SEGMENTATION, 1.0), (Task.DETECTION, 2.0)):
        anchors = consolidate(anchors, task, parameters(a=[value]), importance(a=[1.0]), EwcConfig())
    assert {name: anchor.parameters["a"].item() for name, anchor in anchors.items()} == {
        "segmentation": 1.0,
        "detection": 2.0,
    }


def test_online_there_is_one_anchor_at_the_newest_weights() -> None:
    config, anchors = EwcConfig(online=True, decay=0.5), dict[str, Anchor]()
    for task, value in zip(Task, (1.0, 2.0, 3.0), strict=True):
        anchors = consolidate(anchors, task, parameters(a=[value]), importance(a=[1.0]), config)
    assert anchors.keys() == {EARLIER}
    assert anchors[EARLIER].parameters["a"].item() == 3.0
    assert anchors[EARLIER].importance["a"].item() == pytest.approx(1 + 0.5 * (1 + 0.5 * 1))


@pytest.mark.parametrize(
    ("fraction", "a", "b"),
    [
        (0.4, [0.0, 5.0], [[0.0], [4.0], [0.0]]),
        (0.2, [0.0, 5.0], [[0.0], [0.0], [0.0]]),
        (0.01, [0.0, 5.0], [[0.0], [0.0], [0.0]]),
        (1.0, [1.0, 5.0], [[3.0], [4.0], [2.0]]),
    ],
)
def test_the_most_important_weights_of_all_tensors_together_stay(
    fraction: float, a: list[float], b: list[list[float]]
) -> None:
    given = {"a": torch.tensor([1.0, 5.0]), "b": torch.tensor([[3.0], [4.0], [2.0]])}
    found = keep_fraction(given, fraction)
    assert found["a"].tolist() == a
    assert found["b"].tolist() == b
    assert given["a"].tolist() == [1.0, 5.0]


def test_of_equals_exactly_so_many_stay() -> None:
    found = keep_fraction({"a": torch.ones(7), "b": torch.ones(3)}, 0.5)
    assert found["a"].tolist() == [1.0] * 5 + [0.0] * 2
    assert not found["b"].any()


@pytest.mark.parametrize(("progress", "wanted"), [(0.0, 0.0), (0.1, 1.0), (0.2, 2.0), (0.4, 4.0), (0.9, 4.0)])
def test_progressive_lambda_grows_over_the_ramp(progress: float, wanted: float) -> None:
    assert ewc_strength(4.0, EwcConfig(schedule="progressive", ramp=0.4), progress) == pytest.approx(wanted)
    assert ewc_strength(4.0, EwcConfig(), progress) == 4.0


def make_hook(config: Config, **importances: float) -> tuple[Ewc, MultiTaskModel]:
    """Anchors at the network's own weights, each with one importance throughout."""
    context = make_context(config)
    shared = context.model.shared_parameters()
    anchors = {
        label: make_anchor(shared, {name: torch.full_like(value, level) for name, value in shared.items()})
        for label, level in importances.items()
    }
    return Ewc(context.model, anchors, context.stage.ewc, CPU), context.model


def test_a_part_for_each_protected_task_whose_gradient_is_lambda_times_importance_times_distance() -> None:
    config = make_config({"ewc": {"strength": {"segmentation": 10.0, "detection": 0.5}}})
    hook, model = make_hook(config, segmentation=1.0, detection=3.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.25)
    parts = hook.losses(make_step(model))
    assert parts.keys() == {"ewc/segmentation", "ewc/detection"}
    for name, wanted in (("ewc/segmentation", 10 * 1 * 0.25), ("ewc/detection", 0.5 * 3 * 0.25)):
        found = find_gradients(parts[name], model)
        assert found.keys() == model.shared_parameters().keys()
        for gradient in found.values():
            torch.testing.assert_close(gradient, torch.full_like(gradient, wanted), rtol=1e-4, atol=0)


def test_a_task_without_strength_is_free() -> None:
    hook, model = make_hook(make_config({"ewc": {"strength": {"segmentation": 0.0, "detection": 1.0}}}), detection=1.0)
    assert hook.losses(make_step(model)).keys() == {"ewc/detection"}


def test_online_there_is_one_part_for_all_earlier_tasks() -> None:
    config = make_config({"ewc": {"strength": {"segmentation": 5.0, "detection": 5.0}, "online": True}})
    hook, model = make_hook(config, earlier=1.0)
    disturb(model, "neck.")
    once = ewc_penalty(model.shared_parameters(), hook._anchors[EARLIER]).item()
    parts = hook.losses(make_step(model))
    assert parts.keys() == {"ewc/earlier"}
    assert parts["ewc/earlier"].item() == pytest.approx(5 * once)


def test_progress_and_fraction_reach_the_penalty() -> None:
    options = {"strength": {"segmentation": 1.0}, "schedule": "progressive", "ramp": 0.5, "fraction": 0.1}
    hook, model = make_hook(make_config({"ewc": options}), segmentation=1.0)
    disturb(model, by=0.5)
    early, late = (hook.losses(make_step(model, progress=p))["ewc/segmentation"] for p in (0.1, 0.9))
    assert early.item() == pytest.approx(0.2 * late.item())
    held = sum(int((value != 0).sum()) for value in find_gradients(late, model).values())
    size = sum(value.numel() for value in model.shared_parameters().values())
    assert 0 < held <= round(0.1 * size)


def test_a_weight_that_the_anchor_does_not_know_may_not_learn() -> None:
    context = make_context(make_config({"ewc": {"strength": {"segmentation": 1.0}}}))
    shared = context.model.shared_parameters()
    known = {name: value for name, value in shared.items() if not name.startswith("neck.")}
    anchors = {"segmentation": make_anchor(known, {name: torch.ones_like(value) for name, value in known.items()})}
    hook = Ewc(context.model, anchors, context.stage.ewc, CPU)
    with pytest.raises(ValueError, match=r"does not know \['neck.0.weight'.*frozen when it was made"):
        hook.losses(make_step(context.model))


def test_where_no_shared_weight_learns_there_is_nothing_to_hold() -> None:
    hook, model = make_hook(make_config({"ewc": {"strength": {"segmentation": 1.0}}}), segmentation=1.0)
    step = make_step(model)
    model.begin_stage(frozen=("backbone", "neck", "stem"))
    assert hook.losses(step) == {}
