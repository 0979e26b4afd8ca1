import pytest
import torch
from torch import Tensor, nn

from tests.training.fakes import make_branches_config, make_config, make_images, make_model
from training.config import ModelConfig
from training.options.stage import Part

FROZEN = make_config().model.model_copy(update={"batch_norm": "frozen"})
BRANCHES = make_branches_config().model


def batch_norm_state(module: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, part in module.named_modules()
        if isinstance(part, nn.BatchNorm2d)
        for key, value in part.state_dict().items()
    }


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in batch_norm_state(module).items() if not torch.equal(value, before[name])}


def test_live_batch_norm_moves_its_statistics_in_training_and_not_in_evaluation() -> None:
    model = make_model()
    before = batch_norm_state(model)
    model.eval()(make_images(2))
    assert not changed(model, before)
    model.train()(make_images(2))
    assert changed(model, before) == {name for name in before if "running" in name or "num_batches" in name}


def test_frozen_batch_norm_never_moves_in_the_backbone_though_the_neck_learns() -> None:
    model = make_model(FROZEN)
    before, neck_before = batch_norm_state(model.backbone), batch_norm_state(model.neck)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    for mode in (True, False, True):
        model.train(mode)
        sum(part.square().sum() for part in model(make_images(2))).backward()
        optimizer.step()
    assert not changed(model.backbone, before)
    assert changed(model.neck, neck_before) == neck_before.keys()
    assert model.training
    assert model.head.get_submodule("stem").training


def test_frozen_batch_norm_answers_in_training_as_in_evaluation() -> None:
    backbone, images = make_model(FROZEN).train().backbone, torch.randn(2, 3, 64, 64, generator=torch.manual_seed(0))
    frozen = backbone(images)
    torch.testing.assert_close(frozen.s32, backbone.eval()(images).s32)


@pytest.mark.parametrize("config", [make_config().model, FROZEN], ids=["live", "frozen"])
def test_shared_parameters_are_all_that_learn_but_the_prediction_rows(config: ModelConfig) -> None:
    model = make_model(config)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning - model.shared_parameters().keys() == {"head.predict.weight", "head.predict.bias"}
    assert model.shared_parameters().keys() < learning


def test_frozen_affine_parameters_are_not_shared_parameters() -> None:
    live, frozen = make_model().shared_parameters().keys(), make_model(FROZEN).shared_parameters().keys()
    norms = {name.rsplit(".", 1)[0] for name in batch_norm_state(make_model().backbone)}
    assert live - frozen == {f"backbone.{norm}.{part}" for norm in norms for part in ("weight", "bias")}


def test_of_a_network_with_branches_backbone_and_neck_are_shared_and_a_frozen_part_is_not() -> None:
    model = make_model(BRANCHES)
    names = {name for name, _ in model.named_parameters()}
    assert model.shared_parameters().keys() == {name for name in names if name.startswith(("backbone.", "neck."))}
    model.begin_stage(frozen=["backbone"])
    assert model.shared_parameters().keys() == {name for name in names if name.startswith("neck.")}
    model.begin_stage()
    assert len(model.shared_parameters()) > len([name for name in names if name.startswith("backbone.")])


def test_a_frozen_part_answers_in_training_as_in_evaluation_and_has_no_gradients() -> None:
    model = make_model(BRANCHES.model_copy(update={"dropout": 0.5}))
    expected = model.eval()(make_images(2)).segmentation
    model.begin_stage(frozen=["backbone", "neck", "segmentation"])
    logits = model.train()(make_images(2))
    assert torch.equal(logits.segmentation, expected)
    assert not logits.segmentation.requires_grad
    sum(part.square().sum() for part in (logits.detection, logits.classification)).backward()
    learning = {part for part, module in model.parts().items() if any(p.grad is not None for p in module.parameters())}
    assert learning == {"detection", "classification"}


def test_the_statistics_of_a_frozen_part_stay_while_those_of_the_others_move() -> None:
    model = make_model(BRANCHES)
    before = {part: batch_norm_state(module) for part, module in model.parts().items()}
    model.begin_stage(frozen=["backbone", "segmentation"])
    model.train()(make_images(2))
    moved = {part for part, module in model.parts().items() if changed(module, before[part])}
    assert moved == {"neck", "detection"}  # classification has no batch-norm


def test_what_one_stage_freezes_the_next_one_may_learn() -> None:
    model = make_model(BRANCHES)
    model.begin_stage(frozen=["backbone", "neck"], still_norms=["detection"])
    model.begin_stage(frozen=["classification"])
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"head.classification.predict.{part}" for part in ("weight", "bias")}
    assert {name for name, module in model.named_modules() if not module.training} == {
        f"head.classification.{part}" for part in ("drop", "predict")
    }


@pytest.mark.parametrize("part", ["backbone", "neck"])
def test_norms_that_are_to_be_still_neither_move_nor_learn_in_a_part_that_does(part: Part) -> None:
    model = make_model(BRANCHES)
    model.begin_stage(still_norms=[part])
    module = model.parts()[part]
    before = batch_norm_state(module)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    sum(answer.square().sum() for answer in model.train()(make_images(2))).backward()
    optimizer.step()
    assert not changed(module, before)
    convolutions = [each for each in module.modules() if isinstance(each, nn.Conv2d)]
    assert all(convolution.weight.grad is not None for convolution in convolutions)
    assert module.training


def test_backbone_norms_that_the_config_freezes_stay_so_whatever_a_stage_says() -> None:
    model = make_model(BRANCHES.model_copy(update={"batch_norm": "frozen"}))
    model.begin_stage(frozen=["neck"])
    model.begin_stage()
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
