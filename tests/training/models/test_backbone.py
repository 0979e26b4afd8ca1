import pickle  # noqa: TID251 - to show that it is refused
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small

from tests.outside import find_outside
from training.models.backbone import MobileNetV3Small, WeightsError, load_imagenet_weights

Taps = Literal["blocks", "expansions"]
CHANNELS: dict[Taps, tuple[int, ...]] = {"blocks": (16, 24, 48, 576), "expansions": (72, 96, 288, 576)}
LAYERS: dict[Taps, tuple[str, ...]] = {
    "blocks": ("1", "3", "8", "12"),
    "expansions": ("2.block.0", "4.block.0", "9.block.0", "12"),
}


@pytest.fixture(scope="module")
def imagenet_weights() -> Path:
    """The real weights, from UNIHEAD_BACKBONE_WEIGHTS."""
    return find_outside("UNIHEAD_BACKBONE_WEIGHTS", "weights")


def assert_same_as_torchvision(path: Path) -> None:
    """Load a file both ways, and compare what comes out for the same pixels."""
    reference = mobilenet_v3_small(weights=None)
    loaded = reference.load_state_dict(torch.load(path, weights_only=True), strict=False)  # noqa: TID251 - the oracle
    assert not loaded.unexpected_keys
    assert all(name.startswith("classifier.") for name in loaded.missing_keys)
    backbone = MobileNetV3Small()
    load_imagenet_weights(backbone, path)
    pixels = torch.randn(2, 3, 64, 96, generator=torch.manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(backbone.eval()(pixels).s32, reference.features.eval()(pixels))


def test_the_backbone_has_the_parameters_of_the_report() -> None:
    assert sum(parameter.numel() for parameter in MobileNetV3Small().parameters()) == 927_008


@pytest.mark.parametrize(("taps", "channels"), CHANNELS.items())
def test_the_features_lie_at_four_strides_and_have_the_channels_of_their_taps(
    taps: Taps, channels: tuple[int, ...]
) -> None:
    backbone = MobileNetV3Small(taps)
    with torch.inference_mode():
        pyramid = backbone.eval()(torch.zeros(2, 3, 64, 96))
    assert backbone.channels == channels
    expected = [(2, count, 64 // stride, 96 // stride) for count, stride in zip(channels, (4, 8, 16, 32), strict=True)]
    assert [feature.shape for feature in pyramid] == expected


@pytest.mark.parametrize("taps", list(CHANNELS))
def test_tapping_changes_nothing_and_each_feature_is_a_layer_of_torchvision(taps: Taps) -> None:
    """Fails where a layer is run twice or left out, or a tap is not the layer that the paper taps."""
    torch.manual_seed(3)
    backbone = MobileNetV3Small(taps).eval()
    reference = mobilenet_v3_small(weights=None).features.eval()
    reference.load_state_dict(backbone.state_dict())
    modules = [reference.get_submodule(name) for name in LAYERS[taps]]
    seen: dict[nn.Module, Tensor] = {}
    for module in modules:
        module.register_forward_hook(lambda module, _, output: seen.update({module: output.clone()}))
    pixels = torch.randn(2, 3, 64, 64, generator=torch.manual_seed(0))
    with torch.inference_mode():
        reference(pixels)
        pyramid = backbone(pixels)
    for feature, module in zip(pyramid, modules, strict=True):
        assert torch.equal(feature, seen[module])
    assert torch.equal(pixels, torch.randn(2, 3, 64, 64, generator=torch.manual_seed(0)))


def test_weights_of_the_whole_torchvision_network_load(tmp_path: Path) -> None:
    torch.manual_seed(3)
    torch.save(mobilenet_v3_small(weights=None).state_dict(), tmp_path / "whole.pth")
    assert_same_as_torchvision(tmp_path / "whole.pth")


def test_the_imagenet_weights_load_as_torchvision_loads_them(imagenet_weights: Path) -> None:
    assert_same_as_torchvision(imagenet_weights)


def test_the_imagenet_weights_are_trained_ones(imagenet_weights: Path) -> None:
    backbone = MobileNetV3Small()
    untouched = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    load_imagenet_weights(backbone, imagenet_weights)
    means = {name: value for name, value in backbone.named_buffers() if name.endswith("running_mean")}
    assert all(not torch.equal(value, untouched[name]) for name, value in means.items())


def test_a_missing_file_is_an_error_that_names_it_and_the_flag(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pth.*--backbone-weights"):
        load_imagenet_weights(MobileNetV3Small(), tmp_path / "absent.pth")


@pytest.mark.parametrize("content", [b"not a state dict", b"", pickle.dumps(Path("code"))])
def test_a_file_that_is_no_state_dict_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"wrong\.pth"):
        load_imagenet_weights(MobileNetV3Small(), path)


@pytest.mark.parametrize(
    "state",
    [
        {"layer1.weight": torch.zeros(1)},
        {"features.0.0.weight": torch.zeros(1)},
        {**mobilenet_v3_small(weights=None).state_dict(), "features.13.weight": torch.zeros(1)},
        torch.zeros(3),
        [],
    ],
    ids=["another network", "part and wrong shape", "one too many", "a tensor", "a list"],
)
def test_weights_of_something_else_are_an_error(tmp_path: Path, state: object) -> None:
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth does not hold the features"):
        load_imagenet_weights(MobileNetV3Small(), tmp_path / "other.pth")


def test_without_a_file_torchvision_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_internet(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_internet)
    with pytest.raises(WeightsError, match="torchvision's download: no route to host; give a state dict"):
        load_imagenet_weights(MobileNetV3Small(), None)
