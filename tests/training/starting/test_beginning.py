from pathlib import Path

import pytest
import torch

from tests.training.fakes import make_branches_config
from tests.training.starting.files import CLASSES, make_network, write_origin
from tests.training.watched import assert_same_tensors
from training.models.backbone import WeightsError
from training.starting.beginning import begin
from training.starting.origin import open_origin

PRETRAINED = make_branches_config(
    model={"neck": "fpn", "neck_channels": 16, "head": "branches", "classification": "tail"}
)


def test_a_file_that_holds_the_backbone_spares_the_imagenet_weights(tmp_path: Path) -> None:
    random = make_branches_config(model=PRETRAINED.model.model_dump() | {"backbone_weights": "random"})
    theirs = write_origin(tmp_path / "origin.pt", random)
    begun = begin(PRETRAINED, CLASSES, weights=tmp_path / "absent.pth", origin=open_origin(tmp_path / "origin.pt"))
    assert_same_tensors(begun.checkpoint.model, theirs.state_dict())
    pooled = make_branches_config()  # its file has no tail
    write_origin(tmp_path / "pooled.pt", pooled)
    with pytest.raises(WeightsError, match=r"absent\.pth"):
        begin(PRETRAINED, CLASSES, weights=tmp_path / "absent.pth", origin=open_origin(tmp_path / "pooled.pt"))


def test_what_begins_anew_is_drawn_by_the_seed_as_without_a_file(tmp_path: Path) -> None:
    config = make_branches_config(seed=3)
    network = make_network(config, seed=7).state_dict()
    torch.save({name: value for name, value in network.items() if name.startswith("backbone.")}, tmp_path / "part.pth")
    begun = begin(config, CLASSES, origin=open_origin(tmp_path / "part.pth")).checkpoint.model
    plain = begin(config, CLASSES).checkpoint.model
    assert_same_tensors(begun, {name: network[name] if name.startswith("backbone.") else plain[name] for name in plain})
