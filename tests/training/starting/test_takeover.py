from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.fakes import make_branches_config, make_config
from tests.training.starting.files import CLASSES, make_network, write_origin
from tests.training.watched import assert_same_tensors
from training.checkpoint import CheckpointError
from training.config import Config
from training.data.taxonomy import Taxonomy
from training.models.heads import BOX_ROWS
from training.starting.origin import open_origin
from training.starting.takeover import Takeover, find_part, fits_whole_part, take_over


def take(path: Path, config: Config, taxonomy: Taxonomy) -> tuple[Takeover, dict[str, torch.Tensor]]:
    model = make_network(config, taxonomy)
    return take_over(model, config.model, taxonomy, open_origin(path)), model.state_dict()


@pytest.mark.parametrize("config", [make_config(), make_branches_config()], ids=["unified", "branches"])
def test_the_same_network_is_taken_whole(config: Config, tmp_path: Path) -> None:
    theirs = write_origin(tmp_path / "origin.pt", config).state_dict()
    takeover, mine = take(tmp_path / "origin.pt", config, CLASSES)
    assert_same_tensors(mine, theirs)
    assert not takeover.unused
    assert all(one.rows == one.of_rows and not one.anew for one in takeover.tensors)


def test_rows_go_by_the_names_of_their_classes_and_new_classes_begin_anew(tmp_path: Path) -> None:
    config = make_branches_config()
    theirs = write_origin(tmp_path / "origin.pt", config).state_dict()
    mine = replace(CLASSES, detection=("Nut", "rust", "crack", "hole"), classification=("bad", "good"))
    takeover, state = take(tmp_path / "origin.pt", config, mine)
    fresh = make_network(config, mine).state_dict()
    for kind in ("weight", "bias"):
        scores, other = (found[f"head.detection.scores.{kind}"] for found in (state, theirs))
        assert torch.equal(scores[[0, 2]], other[[1, 2]])
        assert torch.equal(scores[[1, 3]], fresh[f"head.detection.scores.{kind}"][[1, 3]])
        classes, other = (found[f"head.classification.predict.{kind}"] for found in (state, theirs))
        assert torch.equal(classes, other.flip(0))
    assert torch.equal(state["head.detection.boxes.weight"], theirs["head.detection.boxes.weight"])
    assert ("detection", "51 and 2 in part (2 of 4 rows)", "0", "0") in takeover.rows_of_table()


def test_rows_of_the_unified_head_find_their_places_too(tmp_path: Path) -> None:
    config = make_config()
    theirs = write_origin(tmp_path / "origin.pt", config).state_dict()["head.predict.weight"]
    mine = Taxonomy(("background", "stain", "crack"), ("crack",))
    takeover, state = take(tmp_path / "origin.pt", config, mine)
    found, first = state["head.predict.weight"], BOX_ROWS + len(CLASSES.detection)
    assert torch.equal(found[:BOX_ROWS], theirs[:BOX_ROWS])
    assert torch.equal(found[BOX_ROWS], theirs[first - 1])  # the crack of boxes
    assert torch.equal(found[[BOX_ROWS + 1, BOX_ROWS + 3]], theirs[[first, first + 1]])  # background and crack of masks
    assert [one.anew for one in takeover.tensors if one.rows < one.of_rows] == [frozenset({"segmentation"})] * 2


def test_what_has_another_shape_begins_anew_and_is_told_by_its_part(tmp_path: Path) -> None:
    config = make_branches_config()
    write_origin(tmp_path / "origin.pt", config, taxonomy=Taxonomy(CLASSES.segmentation, CLASSES.detection))
    wide = config.model_copy(update={"model": config.model.model_copy(update={"neck_channels": 24})})
    takeover, state = take(tmp_path / "origin.pt", wide, replace(CLASSES, detection=()))
    table = {part: counts for part, *counts in takeover.rows_of_table()}
    assert table["backbone"] == ["240", "0", "0"]
    assert table["classification"] == ["0", "2", "0"]
    assert table["detection"][:2] == ["0", "0"]
    assert int(table["detection"][2]) > 20
    assert int(table["neck"][1]) > 0
    fresh = make_network(wide, replace(CLASSES, detection=())).state_dict()
    begun = [one.name for one in takeover.tensors if not one.rows]
    assert_same_tensors({name: state[name] for name in begun}, {name: fresh[name] for name in begun})


def test_a_state_dict_names_no_classes_so_its_last_layers_are_taken_by_shape(tmp_path: Path) -> None:
    config = make_branches_config()
    theirs = make_network(config, seed=7).state_dict()
    torch.save({"model": theirs, "epoch": 3}, tmp_path / "weights.pth")
    takeover, state = take(tmp_path / "weights.pth", config, replace(CLASSES, detection=("a", "b")))
    assert torch.equal(state["head.segmentation.predict.weight"], theirs["head.segmentation.predict.weight"])
    assert [one.name for one in takeover.tensors if not one.rows] == [
        "head.detection.scores.weight",
        "head.detection.scores.bias",
    ]


def test_a_file_of_which_nothing_fits_is_refused(tmp_path: Path) -> None:
    torch.save({"features.0.0.weight": torch.zeros(16, 3, 3, 3)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"nothing in .*weights\.pth fits the network: of its 1 tensors"):
        take(tmp_path / "weights.pth", make_config(), CLASSES)


def test_a_part_is_there_as_a_whole_or_not(tmp_path: Path) -> None:
    config = make_branches_config()
    write_origin(tmp_path / "origin.pt", config)
    origin, model = open_origin(tmp_path / "origin.pt"), make_network(config)
    assert fits_whole_part(model, origin, ["backbone"])
    fewer = {name: value for name, value in origin.state.items() if name != "backbone.0.0.weight"}
    lacking = replace(origin, state=fewer)
    assert not fits_whole_part(model, lacking, ["backbone"])
    assert fits_whole_part(model, lacking, ["neck"])


def test_every_tensor_is_in_the_part_that_has_it() -> None:
    model = {"neck": "fpn", "neck_channels": 16, "head": "branches", "classification": "tail", "routing": "static"}
    network = make_network(make_config(model=model | {"backbone_weights": "random"}))
    for part, module in network.parts().items():
        own = {id(parameter) for parameter in module.parameters()}
        found = {find_part(name) for name, parameter in network.named_parameters() if id(parameter) in own}
        assert found == {part}
    assert find_part("features.0.0.weight") == "other"
