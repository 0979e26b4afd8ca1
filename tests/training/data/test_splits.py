"""Which pictures are learned from, measured on, and measured for choices."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.data.layouts.odd_boxes import coco
from tests.training.fakes import make_config
from tests.training.there import there
from training.config import Task
from training.data.datasets import DataError, DataSets, name_splits
from training.data.doctor.examine import examine
from training.data.loaders import divide, hold_out
from training.data.sources import read_data

POLISH = {"epochs": 1, "holdout": 0.3}


def with_choose(sets: DataSets, *, val: bool = True) -> DataSets:
    """Half of detection's val for choices, and the other for measuring or for nobody."""
    split = there(sets.detection)
    return replace(sets, detection=replace(split, val=split.val[2:] if val else (), choose=split.val[:2]))


def test_choices_are_measured_on_choose_and_figures_on_val(sets: DataSets) -> None:
    split = there(with_choose(sets).detection)
    assert split.watched == ("choose", split.choose)
    assert split.final == ("val", split.val)


def test_without_choose_all_is_measured_on_val_and_without_val_all_on_choose(sets: DataSets) -> None:
    split = there(sets.detection)
    assert split.watched == split.final == ("val", split.val)
    split = there(with_choose(sets, val=False).detection)
    assert split.watched == split.final == ("choose", split.choose)


def test_what_is_held_out_of_train_is_called_so(sets: DataSets) -> None:
    held = hold_out(with_choose(sets), 0.3)
    assert name_splits({task: held.split(task).final for task in Task}) == dict.fromkeys(map(str, Task), "holdout")
    assert there(held.detection).watched.split == "choose"
    assert there(held.segmentation).watched.split == "holdout"


def test_a_task_with_pictures_for_choices_holds_none_out_for_its_polish(sets: DataSets) -> None:
    mixed = with_choose(sets)
    learned, judged = divide(mixed, make_config(polish=POLISH))
    assert learned.detection == mixed.detection
    assert there(judged.detection).watched == ("choose", there(mixed.detection).choose)
    assert len(there(learned.segmentation).train) == 4
    assert there(judged.segmentation).watched == ("holdout", there(hold_out(sets, 0.3).segmentation).val)
    assert there(learned.segmentation).final == ("val", there(sets.segmentation).val)


def test_each_task_has_the_pictures_of_a_split_that_it_has(sets: DataSets) -> None:
    mixed = with_choose(sets, val=False)
    assert mixed.pictures([*Task], "choose") == {Task.DETECTION: there(mixed.detection).choose}
    assert [*mixed.pictures([*Task], "val")] == [Task.SEGMENTATION, Task.CLASSIFICATION]
    assert [*mixed.pictures([*Task], "train")] == [*Task]
    with pytest.raises(DataError, match=r"^the data has no val of detection, only train and choose$"):
        mixed.pictures([Task.DETECTION], "val")
    with pytest.raises(DataError, match=r"^the data has no choose of segmentation or detection, only train and val$"):
        sets.pictures([Task.SEGMENTATION, Task.DETECTION], "choose")


def write_data(root: Path, *splits: str) -> Path:
    coco()(root / "boxes")
    for number, path in enumerate((root / "boxes" / "val" / "data").iterdir()):  # no pictures of train
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
    (root / "data.toml").write_text(
        "".join(
            f'[[source]]\ntask = "detection"\npath = "boxes/{folder}/labels.json"\nsplit = "{split}"\n'
            for folder, split in zip(("train", "val"), splits, strict=True)
        )
    )
    return root / "data.toml"


def test_data_may_have_choose_in_place_of_val(tmp_path: Path) -> None:
    path = write_data(tmp_path, "train", "choose")
    split = there(read_data(path).detection)
    assert (len(split.train) > 0, split.val, len(split.choose) > 0) == (True, (), True)
    assert "missing-split" not in {finding.code for finding in examine(path).findings}


def test_data_needs_something_to_measure_on(tmp_path: Path) -> None:
    path = write_data(tmp_path, "train", "train")
    with pytest.raises(DataError, match="detection has no picture in val"):
        read_data(path)
    assert "missing-split" in {finding.code for finding in examine(path).findings}
