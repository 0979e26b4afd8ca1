from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.fakes import make_branches_config, make_config
from tests.training.starting.files import CLASSES, make_evaluations, write_origin
from training.checkpoint import CheckpointError
from training.config import Config, ConfigError
from training.continual.ewc import EARLIER
from training.data.taxonomy import Taxonomy, TaxonomyError
from training.hooks.anchor import Anchor
from training.starting.beginning import Beginning, begin
from training.starting.origin import open_origin
from training.starting.segment import WHOLE, Segment, choose_segment

POLISHED = make_branches_config(polish={"epochs": 1})


@pytest.mark.parametrize(
    ("stage", "through", "expected"),
    [
        (None, None, WHOLE),
        ("segmentation", None, Segment(0, 1)),
        ("detection", None, Segment(1, 2)),
        ("detection", "classification", Segment(1, 3)),
        (None, "detection", Segment(0, 2)),
        ("classification", "polish", Segment(2, 4)),
        ("polish", None, Segment(3, 4)),
    ],
)
def test_a_segment_begins_with_a_stage_and_ends_after_one(
    stage: str | None, through: str | None, expected: Segment
) -> None:
    assert choose_segment(POLISHED, stage, through) == expected


@pytest.mark.parametrize(
    ("stage", "through", "sentence"),
    [
        ("detect", None, "has no stage 'detect'; it has segmentation, detection, classification"),
        (None, "polish", "has no stage 'polish'"),
        ("classification", "detection", "--through detection comes before --stage classification"),
    ],
)
def test_a_segment_that_is_none_is_refused(stage: str | None, through: str | None, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        choose_segment(make_branches_config(), stage, through)


def begin_at(path: Path | None, begins: int, config: Config | None = None, taxonomy: Taxonomy = CLASSES) -> Beginning:
    origin = None if path is None else open_origin(path)
    return begin(config or make_branches_config(), taxonomy, origin=origin, segment=Segment(begins, begins + 1))


def test_a_segment_counts_what_the_file_has_learned_and_begins_after_it(tmp_path: Path) -> None:
    write_origin(tmp_path / "origin.pt", stage=3)
    begun = begin_at(tmp_path / "origin.pt", 2).checkpoint
    assert (begun.stage, begun.begins, begun.end, begun.own_stages) == (2, 2, 3, ["classification"])
    assert begun.learned == ("segmentation", "detection")
    assert begun.history == make_evaluations(2)
    assert begun.origin_sha256 == open_origin(tmp_path / "origin.pt").sha256


def test_of_a_stage_learned_twice_the_last_evaluation_counts(tmp_path: Path) -> None:
    first: dict[str, Any] = {"kind": "evaluation", "stage": "segmentation", "metrics": {}, "seconds": 1.0}
    second = first | {"seconds": 2.0}
    write_origin(tmp_path / "origin.pt", stage=1, history=[first, second])
    assert begin_at(tmp_path / "origin.pt", 1).checkpoint.history == [second]


def test_starting_anew_from_a_file_counts_nothing_as_learned(tmp_path: Path) -> None:
    write_origin(tmp_path / "origin.pt", stage=3)
    begun = begin(make_branches_config(), CLASSES, origin=open_origin(tmp_path / "origin.pt")).checkpoint
    assert (begun.stage, begun.learned, begun.history, begun.end) == (0, (), [], 3)


@pytest.mark.parametrize(
    ("stage", "fields", "sentence"),
    [
        (0, {}, "has learned nothing; wanted one that has learned segmentation too"),
        (1, {}, "has learned segmentation; wanted one that has learned detection too"),
        (2, {"history": make_evaluations(1)}, "does not say how well it has learned detection"),
    ],
)
def test_a_file_that_has_not_learned_what_comes_before_is_refused(
    tmp_path: Path, stage: int, fields: dict[str, Any], sentence: str
) -> None:
    write_origin(tmp_path / "origin.pt", stage=stage, **fields)
    with pytest.raises(CheckpointError, match=sentence):
        begin_at(tmp_path / "origin.pt", 2)


def test_a_later_segment_needs_a_file_and_one_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="before the segment, segmentation and detection, has to be learned: give"):
        begin_at(None, 2)
    torch.save(write_origin(tmp_path / "origin.pt").state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="does not say that it has learned segmentation"):
        begin_at(tmp_path / "weights.pth", 1)


def test_other_classes_of_what_was_learned_are_refused_and_of_what_is_to_be_learned_are_not(tmp_path: Path) -> None:
    write_origin(tmp_path / "origin.pt")
    other = replace(CLASSES, detection=("screw",))
    assert begin_at(tmp_path / "origin.pt", 1, taxonomy=other).checkpoint.taxonomy == other
    with pytest.raises(TaxonomyError, match="only the file has 'bolt', 'nut', 'crack'"):
        begin_at(tmp_path / "origin.pt", 2, taxonomy=other)


def test_another_network_is_refused_save_where_nothing_was_learned_with_it(tmp_path: Path) -> None:
    write_origin(tmp_path / "origin.pt")
    shape = make_branches_config().model
    deeper, wider = (
        make_branches_config(model=shape.model_dump() | change)
        for change in ({"detection_depth": 3}, {"neck_channels": 24})
    )
    begin_at(tmp_path / "origin.pt", 1, deeper)
    for begins, config in ((2, deeper), (1, wider)):
        with pytest.raises(
            CheckpointError, match=r"has another network .*: (neck|head\.detection)\S* does not fit, and"
        ):
            begin_at(tmp_path / "origin.pt", begins, config)


def make_anchors(*labels: str) -> dict[str, Anchor]:
    return {label: Anchor({"weight": torch.ones(1)}, {"weight": torch.ones(1)}) for label in labels}


def test_anchors_of_what_comes_before_go_along_and_where_they_lack_it_is_told(tmp_path: Path) -> None:
    config = make_config()  # its later stages hold on to all earlier ones by ewc
    write_origin(tmp_path / "origin.pt", config, anchors=make_anchors("segmentation", "detection"))
    assert begin_at(tmp_path / "origin.pt", 2, config).checkpoint.anchors.keys() == {"segmentation", "detection"}
    assert begin_at(tmp_path / "origin.pt", 1, config).checkpoint.anchors.keys() == {"segmentation"}
    write_origin(tmp_path / "without.pt", config, anchors=make_anchors("segmentation"))
    with pytest.raises(CheckpointError, match=r"stage classification holds .* no importance of weights for detection"):
        begin_at(tmp_path / "without.pt", 2, config)


def test_the_one_anchor_of_the_online_variant_goes_along_if_it_is_about_the_same_tasks(tmp_path: Path) -> None:
    stages = [stage.model_dump(mode="json") for stage in make_config().stages]
    stages[1]["ewc"] |= {"online": True}
    stages[2]["ewc"] |= {"online": True}
    config = make_config(stages=stages)
    write_origin(tmp_path / "origin.pt", config, stage=2, anchors=make_anchors(EARLIER))
    assert begin_at(tmp_path / "origin.pt", 2, config).checkpoint.anchors.keys() == {EARLIER}
    with pytest.raises(CheckpointError, match="no importance of weights for earlier"):
        begin_at(tmp_path / "origin.pt", 1, config)
