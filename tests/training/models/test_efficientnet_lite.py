import pytest
import torch
from torch import Tensor, nn

from tests.training.fakes import make_images
from training.config import ModelConfig, Task
from training.data.taxonomy import MINI
from training.models.efficientnet_lite import EfficientNetLite, load_efficientnet_lite
from training.models.multitask import build_model

library = pytest.importorskip("efficientnet_lite_pytorch")


@pytest.fixture(scope="module")
def backbone() -> EfficientNetLite:
    return EfficientNetLite(0).eval()


def test_the_features_lie_at_four_strides_and_have_the_channels_of_the_paper(backbone: EfficientNetLite) -> None:
    with torch.inference_mode():
        pyramid = backbone(torch.zeros(2, 3, 64, 96))
    assert backbone.channels == (24, 40, 112, 320)  # EfficientNet-B0's (arXiv:1905.11946, table 1)
    expected = [(2, count, 64 // s, 96 // s) for count, s in zip(backbone.channels, (4, 8, 16, 32), strict=True)]
    assert [feature.shape for feature in pyramid] == expected


def test_the_features_are_those_of_the_package_for_its_own_normalisation(backbone: EfficientNetLite) -> None:
    reference = load_efficientnet_lite(0).eval()
    pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.manual_seed(0)).float()
    with torch.inference_mode():
        found = backbone((pixels - backbone.mean) / backbone.std)
        seen: Tensor = reference._swish(reference._bn0(reference._conv_stem((pixels - 127) / 128)))
        for block in reference._blocks:
            seen = block(seen)
    torch.testing.assert_close(found.s32, seen, atol=1e-3, rtol=1e-3)


def test_branches_grow_on_it_and_nothing_of_its_normalisation_is_a_weight() -> None:
    config = ModelConfig(backbone="efficientnet_lite0", neck="fpn", neck_channels=16, head="branches")
    model = build_model(config, MINI.num_classes).eval()
    with torch.inference_mode():
        logits = model(make_images(1))
    assert logits.segmentation.shape == (1, MINI.num_classes[Task.SEGMENTATION], 8, 8)
    assert not {"backbone.mean", "backbone.std"} & model.state_dict().keys()
    assert any(isinstance(module, nn.ReLU6) for module in model.backbone.modules())
