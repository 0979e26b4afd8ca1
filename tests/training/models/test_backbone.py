import pickle
from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v3_small

from tests.outside import find_outside
from training.models.backbone import OUT_CHANNELS, STRIDE, WeightsError, build_backbone, load_imagenet_weights


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
    backbone = build_backbone()
    load_imagenet_weights(backbone, path)
    pixels = torch.randn(2, 3, 64, 96, generator=torch.manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(backbone.eval()(pixels), reference.features.eval()(pixels))


def test_the_backbone_has_the_parameters_of_the_report() -> None:
    assert sum(parameter.numel() for parameter in build_backbone().parameters()) == 927_008


def test_the_backbone_gives_576_channels_at_stride_32() -> None:
    with torch.inference_mode():
        assert build_backbone().eval()(torch.zeros(2, 3, 64, 96)).shape == (2, OUT_CHANNELS, 64 // STRIDE, 96 // STRIDE)
    assert (OUT_CHANNELS, STRIDE) == (576, 32)


def test_weights_of_the_whole_torchvision_network_load(tmp_path: Path) -> None:
    torch.manual_seed(3)
    torch.save(mobilenet_v3_small(weights=None).state_dict(), tmp_path / "whole.pth")
    assert_same_as_torchvision(tmp_path / "whole.pth")


def test_the_imagenet_weights_load_as_torchvision_loads_them(imagenet_weights: Path) -> None:
    assert_same_as_torchvision(imagenet_weights)


def test_the_imagenet_weights_are_trained_ones(imagenet_weights: Path) -> None:
    backbone = build_backbone()
    untouched = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    load_imagenet_weights(backbone, imagenet_weights)
    means = {name: value for name, value in backbone.named_buffers() if name.endswith("running_mean")}
    assert all(not torch.equal(value, untouched[name]) for name, value in means.items())


def test_a_missing_file_is_an_error_that_names_it_and_the_flag(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pth.*--backbone-weights"):
        load_imagenet_weights(build_backbone(), tmp_path / "absent.pth")


@pytest.mark.parametrize("content", [b"not a state dict", b"", pickle.dumps(Path("code"))])
def test_a_file_that_is_no_state_dict_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"wrong\.pth"):
        load_imagenet_weights(build_backbone(), path)


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
        load_imagenet_weights(build_backbone(), tmp_path / "other.pth")


def test_without_a_file_torchvision_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_internet(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_internet)
    with pytest.raises(WeightsError, match="torchvision's download: no route to host; give a state dict"):
        load_imagenet_weights(build_backbone(), None)
