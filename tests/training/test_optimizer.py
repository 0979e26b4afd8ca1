import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from tests.training.fakes import make_branches_config, make_config, make_model
from training.config import Config, StageConfig, Task
from training.learner import build_optimizer, build_scheduler
from training.models.multitask import MultiTaskModel
from training.options.stage import Part

STAGE = StageConfig(task=Task.SEGMENTATION, epochs=1, learning_rate=1e-2, weight_decay=0.5)


def groups_by_name(model: MultiTaskModel, optimizer: AdamW) -> dict[str, dict[str, float]]:
    found = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    return {name: found[id(parameter)] for name, parameter in model.named_parameters() if id(parameter) in found}


def part_of(model: MultiTaskModel, name: str) -> Part:
    """The part of the network that a parameter belongs to."""
    wanted = model.get_parameter(name)
    (part,) = (part for part, module in model.parts().items() if any(p is wanted for p in module.parameters()))
    return part


def test_batch_norm_biases_and_prediction_rows_never_decay_and_the_rest_does() -> None:
    model = make_model()
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for name, group in groups_by_name(model, build_optimizer(model, STAGE)).items():
        spared = name.rsplit(".", 1)[0] in norms or name.endswith("bias") or name.startswith("head.predict.")
        assert group["weight_decay"] == (0 if spared else 0.5), name


def test_the_backbone_alone_learns_at_a_fraction_of_the_rate() -> None:
    model = make_model()
    stage = STAGE.model_copy(update={"lr_factors": {"backbone": 0.25}})
    for name, group in groups_by_name(model, build_optimizer(model, stage)).items():
        assert group["lr"] == pytest.approx(0.25e-2 if name.startswith("backbone.") else 1e-2), name


@pytest.mark.parametrize("batch_norm", ["live", "frozen"])
@pytest.mark.parametrize("config", [make_config(), make_branches_config()], ids=["unified", "branches"])
def test_the_optimizer_has_all_that_learns_once_and_no_memory(config: Config, batch_norm: str) -> None:
    model = make_model(config.model.model_copy(update={"batch_norm": batch_norm}))
    optimizer = build_optimizer(model, STAGE)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)
    assert not optimizer.state


def test_each_part_learns_at_its_own_rate_and_not_at_all_at_0() -> None:
    model = make_model(make_branches_config().model)
    factors: dict[Part, float] = {"backbone": 0.5, "neck": 2.0, "detection": 0.25, "classification": 0}
    stage = STAGE.model_copy(update={"lr_factors": factors})
    groups = groups_by_name(model, build_optimizer(model, stage))
    rates = {part: {group["lr"] for name, group in groups.items() if part_of(model, name) == part} for part in factors}
    assert rates == {"backbone": {0.5e-2}, "neck": {2e-2}, "detection": {0.25e-2}, "classification": set()}
    assert {part_of(model, name) for name in groups} == {"backbone", "neck", "segmentation", "detection"}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"head.classification.predict.{part}" for part in ("weight", "bias")}


def test_unless_told_otherwise_the_branches_of_other_tasks_do_not_learn() -> None:
    model = make_model(make_branches_config().model)
    groups = groups_by_name(model, build_optimizer(model, STAGE))
    rates = {part_of(model, name): group["lr"] for name, group in groups.items()}
    assert rates == pytest.approx({"backbone": 1e-3, "neck": 1e-2, "segmentation": 1e-2})


def test_the_norms_of_a_part_stay_as_they_are_where_the_stage_says_so() -> None:
    model = make_model(make_branches_config().model)
    held = groups_by_name(model, build_optimizer(model, STAGE.model_copy(update={"freeze_batch_norm": True})))
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    learning = {norm for norm in norms if f"{norm}.weight" in held}
    assert learning == {norm for norm in norms if norm.startswith("head.segmentation.")}


def test_the_rate_warms_up_then_falls_along_a_cosine_to_zero() -> None:
    optimizer = AdamW([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = build_scheduler(optimizer, steps=105, warmup_fraction=5 / 105)
    rates = []
    for _ in range(106):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:6] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 2.0])
    assert rates[30] == pytest.approx(1 + math.cos(math.pi / 4))
    assert rates[55] == pytest.approx(1.0)
    assert rates[105] == pytest.approx(0.0)
    assert all(later <= earlier for earlier, later in pairwise(rates[5:]))


@pytest.mark.parametrize(("steps", "warmup_fraction"), [(10, 0.0), (1, 0.05), (3, 1.0)])
def test_the_rate_is_never_zero_while_there_are_steps(steps: int, warmup_fraction: float) -> None:
    optimizer = AdamW([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build_scheduler(optimizer, steps=steps, warmup_fraction=warmup_fraction)
    for _ in range(steps):
        assert 0 < optimizer.param_groups[0]["lr"] <= 1
        optimizer.step()
        scheduler.step()
