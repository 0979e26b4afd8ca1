import dataclasses

import pytest

from tests.training.continual.stage import make_config, make_context
from training.config import Config
from training.continual.build import build_hooks
from training.continual.ewc import make_anchor
from training.continual.fisher import estimate_fisher
from training.hooks.anchor import Anchor

EVERYTHING: dict[str, object] = {
    "ewc": {"strength": {"segmentation": 1.0}},
    "distillation": {"outputs": 1.0},
    "replay": {"pictures": 1},
    "agem": {"pictures": 1},
    "averaging": 0.5,
}


def names(config: Config, **changes: object) -> list[str]:
    context = make_context(config)
    shared = context.model.shared_parameters()
    loss = sum((parameter.square().sum() for parameter in shared.values()), start=0 * next(iter(shared.values())).sum())
    anchor: Anchor = make_anchor(shared, estimate_fisher(context.model, shared, [lambda: loss]))
    context = dataclasses.replace(context, anchors={"segmentation": anchor}, **changes)  # type: ignore[arg-type]  # any field
    return [hook.name for hook in build_hooks(context)]


def test_by_default_there_is_no_method() -> None:
    assert names(make_config()) == []


def test_all_methods_in_a_fixed_order() -> None:
    assert names(make_config(EVERYTHING)) == ["ewc", "lwf", "replay", "agem", "averaging"]
    assert names(make_config(dict(reversed(EVERYTHING.items())))) == ["ewc", "lwf", "replay", "agem", "averaging"]


@pytest.mark.parametrize(
    ("option", "name"), [*zip(EVERYTHING, ["ewc", "lwf", "replay", "agem", "averaging"], strict=True)]
)
def test_each_option_turns_on_its_method_alone(option: str, name: str) -> None:
    assert names(make_config({option: EVERYTHING[option]})) == [name]


@pytest.mark.parametrize(
    "off",
    [
        {"ewc": {"strength": {"segmentation": 0.0}}},
        {"distillation": {"temperature": 3.0}},
        {"replay": {"pictures": 3, "labels": 0.0, "outputs": 0.0}},
    ],
)
def test_a_method_without_weight_is_off(off: dict[str, object]) -> None:
    assert names(make_config(off)) == []


def test_features_alone_are_distilled_too() -> None:
    assert names(make_config({"distillation": {"features": 0.5}})) == ["lwf"]


def test_the_first_stage_has_nothing_to_forget() -> None:
    assert names(make_config(EVERYTHING), learned=()) == []


def test_where_only_the_own_branch_learns_nothing_can_be_forgotten() -> None:
    frozen = {"lr_factors": {"backbone": 0.0, "neck": 0.0}}
    context = make_context(make_config(EVERYTHING | frozen, head="branches"))
    assert build_hooks(context) == []
