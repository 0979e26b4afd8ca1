import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from training.data.doctor.balance import objects_per_cell, report_cells, report_classes
from training.data.doctor.codes import Ledger
from training.data.doctor.contents import SplitContents
from training.data.doctor.findings import Picture

ROOT = Path("data")


def class_codes(train: dict[str, int], val: dict[str, int]) -> dict[str, int]:
    contents = {name: SplitContents(ROOT / name, ()) for name in ("train", "val")}
    ledger = Ledger(ROOT)
    report_classes(contents, {"train": Counter(train), "val": Counter(val)}, ledger)
    return {finding.code: len(finding.cases) for finding in ledger.findings()}


def test_a_class_is_rare_below_a_twentieth_of_the_most_common() -> None:
    assert class_codes({"cat": 100, "dog": 5}, {"cat": 1}) == {}
    assert class_codes({"cat": 100, "dog": 4}, {"cat": 1}) == {"class-imbalance": 1}


def test_a_class_of_val_alone_cannot_be_learned() -> None:
    assert class_codes({"cat": 1}, {"cat": 1, "dog": 1}) == {"class-without-training-example": 1}


def test_names_are_compared_both_ways() -> None:
    ids = {"train": {"cat": 0, "dog": 1}, "val": {"cat": 0, "bird": 1}}
    contents = {name: SplitContents(ROOT / name, (), each) for name, each in ids.items()}
    ledger = Ledger(ROOT)
    report_classes(contents, {"train": Counter(cat=1, dog=1), "val": Counter(cat=1)}, ledger)
    cases = {finding.code: finding.cases for finding in ledger.findings()}
    assert [(case.where, case.detail) for case in cases["missing-class-name"]] == [
        ("val", "lacks dog, which train has"),
        ("train", "lacks bird, which val has"),
    ]


def test_objects_share_a_cell_within_their_picture_only() -> None:
    owners = np.array([0, 0, 0, 1])
    centres = np.array([[1.0, 1.0], [7.9, 7.9], [8.0, 1.0], [1.0, 1.0]])
    assert sorted(objects_per_cell(owners, centres, 8)) == [1, 1, 2]


def test_cells_are_counted_on_the_letterboxed_input() -> None:
    # 1024 px become 512, so centres 60 px apart are 30 apart: one cell at stride 32, two at stride 16.
    boxes = (("cat", (0.0, 0.0, 4.0, 4.0), False), ("cat", (60.0, 0.0, 62.0, 4.0), False))
    crowd = ("cat", (0.0, 0.0, 4.0, 4.0), True)
    ledger = Ledger(ROOT)
    pictures = [Picture(ROOT / "a.jpg", 1024, 512, "train", (*boxes, crowd))]
    report_cells("train", ROOT, pictures, ledger, input_size=512, strides=(8, 16, 32))
    (finding,) = ledger.findings()
    assert [case.detail.rsplit("; ", 1)[1] for case in finding.cases] == ["0.0% lost", "0.0% lost", "50.0% lost"]


@pytest.mark.parametrize(("split", "lost_percent"), [("train", [1.6, 4.6, 12.0]), ("val", [3.3, 7.4, 13.7])])
def test_real_boxes_share_cells_as_an_earlier_count_found(
    split: str, lost_percent: list[float], mini_sets_root: Path
) -> None:
    # That count stretched the pictures to the square and took crowds in.
    document = json.loads((mini_sets_root / "mini_coco_det" / split / "labels.json").read_bytes())
    images = {row["id"]: row for row in document["images"]}
    owners, centres = [], []
    for row in document["annotations"]:
        x, y, width, height = row["bbox"]
        image = images[row["image_id"]]
        owners.append(row["image_id"])
        centres.append(((x + width / 2) / image["width"], (y + height / 2) / image["height"]))
    cells = [objects_per_cell(np.array(owners), np.array(centres) * 512, stride_px) for stride_px in (8, 16, 32)]
    assert [round(100 * (1 - len(each) / len(owners)), 1) for each in cells] == lost_percent
