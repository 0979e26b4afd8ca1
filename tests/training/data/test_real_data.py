"""What is known about the mini sets in UNIHEAD_DATA, and what the readers must make of it."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from tests.training.there import there
from training.data.datasets import DataSets, DataWarning, DetectionSample, load_segmentation
from training.data.sources import read_data
from training.data.taxonomy import COCO, IMAGENETTE, VOC

LEAKED = ["000000323751", "000000370486", "000000428111", "000000511204", "000000513567"]


def labels_of(samples: tuple[DetectionSample, ...]) -> set[int]:
    return {label for sample in samples for label in sample.labels.tolist()}


def test_only_the_five_leaked_coco_pictures_are_dropped(mini_sets: DataSets) -> None:
    assert (len(there(mini_sets.segmentation).train), len(there(mini_sets.segmentation).val)) == (240, 60)
    assert (len(there(mini_sets.detection).train), len(there(mini_sets.detection).val)) == (235, 60)
    assert (len(there(mini_sets.classification).train), len(there(mini_sets.classification).val)) == (240, 60)
    assert not {sample.image.stem for sample in there(mini_sets.detection).train} & set(LEAKED)


def test_the_warning_names_the_leaked_pictures_and_reading_is_quick(mini_sets_root: Path) -> None:
    start_s = time.perf_counter()
    with pytest.warns(DataWarning) as caught:
        read_data(mini_sets_root)
    assert time.perf_counter() - start_s < 3
    (warning,) = caught
    assert str(warning.message).endswith(": " + ", ".join(f"{stem}.jpg" for stem in LEAKED))


def test_boxes_crowds_and_classes_are_those_that_were_counted(mini_sets: DataSets) -> None:
    train, val = there(mini_sets.detection).train, there(mini_sets.detection).val
    # 2258 annotations: 52 in leaked pictures (one a crowd) and 5 under 2 px are gone, the other 30 crowds stand apart.
    assert (sum(len(s.boxes) for s in train), sum(len(s.crowd_boxes) for s in train)) == (2171, 30)
    # 512 annotations: 4 crowds, 1 under 2 px.
    assert (sum(len(s.boxes) for s in val), sum(len(s.crowd_boxes) for s in val)) == (507, 4)
    assert (len(labels_of(train)), len(labels_of(val))) == (75, 63)


def test_labels_agree_with_the_names_though_no_id_does(mini_sets: DataSets, mini_sets_root: Path) -> None:
    ids: dict[str, dict[str, int]] = {}
    for split, samples in (("train", there(mini_sets.detection).train), ("val", there(mini_sets.detection).val)):
        document = json.loads((mini_sets_root / "mini_coco_det" / split / "labels.json").read_text())
        ids[split] = {row["name"]: row["id"] for row in document["categories"]}
        name_of_id = {row["id"]: row["name"] for row in document["categories"]}
        file_of_id = {row["id"]: row["file_name"] for row in document["images"]}
        named: dict[str, list[str]] = {file_name: [] for file_name in file_of_id.values()}
        for row in document["annotations"]:
            if not row["iscrowd"] and min(row["bbox"][2:]) >= 2:
                named[file_of_id[row["image_id"]]].append(name_of_id[row["category_id"]])
        for sample in samples:
            assert [COCO[label] for label in sample.labels] == named[sample.image.name]
    assert not ids["train"].items() & ids["val"].items()


def test_a_known_box_is_xyxy_under_its_name(mini_sets: DataSets) -> None:
    (sample,) = (s for s in there(mini_sets.detection).train if s.image.stem == "000000399655")
    assert COCO[sample.labels[0]] == "dog"
    np.testing.assert_allclose(sample.boxes[0], [15.09, 26.55, 499.50, 333.64], atol=1e-3)


def test_every_val_mask_fits_its_picture_and_holds_classes_only(mini_sets: DataSets) -> None:
    seen: set[int] = set()
    for sample in there(mini_sets.segmentation).val:
        _, mask = load_segmentation(sample, len(VOC))
        seen |= set(np.unique(mask).tolist())
    assert seen == {*range(21), 255}


def test_every_class_has_24_train_and_6_val_pictures(mini_sets: DataSets) -> None:
    for samples, count in ((there(mini_sets.classification).train, 24), (there(mini_sets.classification).val, 6)):
        assert np.bincount([sample.label for sample in samples]).tolist() == [count] * len(IMAGENETTE)
