from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small
from torchvision.transforms.functional import normalize, to_tensor

from tests.training.fakes import make_branches_config, make_config, make_images, make_model
from tests.training.there import there
from training.config import ModelConfig, Task, load_config
from training.data.taxonomy import MINI
from training.models.branches import Branches
from training.models.heads import UnifiedHead
from training.models.multitask import MultiTaskModel, build_model

RANDOM = ModelConfig(backbone_weights="random")
BRANCHES = make_branches_config().model


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_with_63_detection_classes_the_model_is_that_of_the_report_to_the_parameter() -> None:
    seed = load_config("seed").model
    assert count(MultiTaskModel(seed, MINI.num_classes | {Task.DETECTION: 63})) == 1_265_987


def test_with_the_80_coco_names_the_model_has_17_rows_more() -> None:
    model = MultiTaskModel(load_config("seed").model, MINI.num_classes)
    assert count(model) == 1_268_724 == 1_265_987 + 17 * (160 + 1)
    assert count(model.backbone) == 927_008
    assert isinstance(model.head, UnifiedHead)
    assert model.head.predict.out_channels == 5 + 80 + 21 + 10


def test_512_px_give_logits_on_a_grid_of_16_by_16() -> None:
    with torch.inference_mode():
        logits = MultiTaskModel(RANDOM, MINI.num_classes).eval()(torch.zeros(1, 512, 512, 3, dtype=torch.uint8))
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


@pytest.mark.parametrize(
    ("changes", "strides"),
    [({"neck": "single", "head": "unified"}, (32,)), ({}, (8, 16, 32)), ({"neck": "pan"}, (8, 16, 32))],
)
def test_the_levels_lie_at_the_strides_that_the_network_names(
    changes: dict[str, str], strides: tuple[int, ...]
) -> None:
    model = make_model(BRANCHES.model_copy(update=changes)).eval()
    features = model.extract(make_images(2))
    assert model.strides == strides
    assert [level.shape for level in features.levels] == [(2, 16, 64 // stride, 64 // stride) for stride in strides]
    assert [feature.shape[2] for feature in features.pyramid] == [16, 8, 4, 2]


@pytest.mark.parametrize("config", [make_config().model, BRANCHES], ids=["unified", "branches"])
@pytest.mark.parametrize("task", list(Task))
def test_the_network_answers_from_what_it_extracts(config: ModelConfig, task: Task) -> None:
    model, images = make_model(config).eval(), make_images(2)
    assert torch.equal(model.head.answer(model.extract(images), task), getattr(model(images), task.value))


@pytest.mark.parametrize(
    "changes", [{"routing": "dynamic"}, {"classification": "tail"}, {"segmentation": "lraspp"}, {"neck": "pan"}]
)
def test_the_parts_share_out_all_weights_without_gap_or_overlap(changes: dict[str, str]) -> None:
    model = make_model(BRANCHES.model_copy(update=changes))
    held = [id(parameter) for part in model.parts().values() for parameter in part.parameters()]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    tail = ["tail"] if "classification" in changes else []
    assert list(model.parts()) == ["backbone", "neck", "segmentation", "detection", "classification", *tail]
    assert list(make_model().parts()) == ["backbone", "neck", "stem"]


def test_imagenet_weights_go_into_the_tail_of_classification_too(tmp_path: Path) -> None:
    torch.manual_seed(5)
    reference = mobilenet_v3_small(weights=None)
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    config = BRANCHES.model_copy(update={"backbone_weights": "imagenet", "classification": "tail"})
    head = build_model(config, MINI.num_classes, weights=tmp_path / "weights.pth").head
    assert isinstance(head, Branches)
    expected = reference.features[9:].state_dict()
    found = there(head.tail).state_dict()
    assert [value.shape for value in found.values()] == [value.shape for value in expected.values()]
    assert all(torch.equal(one, other) for one, other in zip(found.values(), expected.values(), strict=True))


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
    model = build_model(ModelConfig(), MINI.num_classes, weights=tmp_path / "weights.pth")
    expected = reference.features.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.backbone.state_dict().items())
    build_model(RANDOM, MINI.num_classes, weights=tmp_path / "absent.pth")


def test_the_callers_pictures_stay_as_they_are() -> None:
    images = make_images(1)
    make_model().eval()(images)
    assert torch.equal(images, make_images(1))
