from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small
from torchvision.transforms.functional import normalize, to_tensor

from tests.training.fakes import make_config, make_images, make_model
from training.config import ModelConfig, Task, load_config
from training.inference import NUM_CLASSES
from training.models.multitask import MultiTaskModel, build_model

RANDOM = ModelConfig(backbone_weights="random")
FROZEN = make_config().model.model_copy(update={"batch_norm": "frozen"})


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def batch_norm_state(module: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, part in module.named_modules()
        if isinstance(part, nn.BatchNorm2d)
        for key, value in part.state_dict().items()
    }


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in batch_norm_state(module).items() if not torch.equal(value, before[name])}


def test_with_63_detection_classes_the_model_is_that_of_the_report_to_the_parameter() -> None:
    seed = load_config("seed").model
    assert count(MultiTaskModel(seed, NUM_CLASSES | {Task.DETECTION: 63})) == 1_265_987


def test_with_the_80_coco_names_the_model_has_17_rows_more() -> None:
    model = MultiTaskModel(load_config("seed").model, NUM_CLASSES)
    assert count(model) == 1_268_724 == 1_265_987 + 17 * (160 + 1)
    assert count(model.backbone) == 927_008
    assert model.head.predict.out_channels == 5 + 80 + 21 + 10


def test_512_px_give_logits_on_a_grid_of_16_by_16() -> None:
    with torch.inference_mode():
        logits = MultiTaskModel(RANDOM, NUM_CLASSES).eval()(torch.zeros(1, 512, 512, 3, dtype=torch.uint8))
    assert logits.detection.shape == (1, 5 + 80, 16, 16)
    assert logits.segmentation.shape == (1, 21, 16, 16)
    assert logits.classification.shape == (1, 10)


def test_pixels_are_normalised_as_torchvision_normalises_them() -> None:
    model = make_model().eval()
    seen: list[Tensor] = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = make_images(2)
    model(images)
    preset = MobileNet_V3_Small_Weights.IMAGENET1K_V1.transforms()
    expected = torch.stack([normalize(to_tensor(image), preset.mean, preset.std) for image in images.numpy()])
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=1e-5)


def test_a_picture_is_answered_the_same_alone_and_in_a_batch() -> None:
    model, images = make_model().eval(), make_images(3)
    together = model(images)
    alone = model(images[1:2])
    for one, all_of_them in zip(alone, together, strict=True):
        torch.testing.assert_close(one, all_of_them[1:2], atol=1e-5, rtol=1e-4)


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
    assert model.head.stem.training


def test_frozen_batch_norm_answers_in_training_as_in_evaluation() -> None:
    backbone, images = make_model(FROZEN).train().backbone, torch.randn(2, 3, 64, 64, generator=torch.manual_seed(0))
    frozen = backbone(images)
    torch.testing.assert_close(frozen, backbone.eval()(images))


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


def test_what_is_normalised_with_is_no_part_of_the_weights() -> None:
    assert not {"mean", "std"} & make_model().state_dict().keys()


def test_the_seed_decides_the_random_weights() -> None:
    first, again, other = (make_model(seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["head.predict.weight"], other["head.predict.weight"])


def test_imagenet_weights_go_into_the_backbone_and_random_ones_need_no_file(tmp_path: Path) -> None:
    torch.manual_seed(5)
    reference = mobilenet_v3_small(weights=None)
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    model = build_model(ModelConfig(), NUM_CLASSES, weights=tmp_path / "weights.pth")
    expected = reference.features.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.backbone.state_dict().items())
    build_model(RANDOM, NUM_CLASSES, weights=tmp_path / "absent.pth")


def test_the_callers_pictures_stay_as_they_are() -> None:
    images = make_images(1)
    make_model().eval()(images)
    assert torch.equal(images, make_images(1))
