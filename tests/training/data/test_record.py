import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.training.make_sets import write_tiny_sets
from tests.training.there import there
from training.config import Task
from training.data.datasets import DataSets
from training.data.doctor.examine import examine
from training.data.record import RecordError, compute_fingerprint, read_record, record_data, write_record
from training.data.sources import read_data


def test_a_record_says_what_was_learned_from_without_saying_where_it_lies(
    tiny_sets: Path, sets: DataSets, tmp_path: Path
) -> None:
    record = record_data(examine(tiny_sets), sets)
    assert record.splits.keys() == set(Task)
    for task, splits in record.splits.items():
        assert {name: split.pictures for name, split in splits.items()} == {"train": 6, "val": 4}, task
    objects = record.splits[Task.DETECTION]["val"].class_counts
    assert sum(objects.values()) == sum(len(sample.boxes) for sample in there(sets.detection).val)
    assert {fault.code: fault.repaired for fault in record.faults if fault.code == "category-ids-differ"} == {
        "category-ids-differ": True
    }
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert str(tiny_sets) not in (tmp_path / "data.json").read_text()


def test_a_run_without_a_record_has_none(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None


def test_a_record_of_another_version_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("{}")
    with pytest.raises(RecordError, match=r"data.json is not a record"):
        read_record(tmp_path)


def test_the_same_data_elsewhere_has_the_same_fingerprint(tiny_sets: Path, sets: DataSets, tmp_path: Path) -> None:
    shutil.copytree(tiny_sets, tmp_path / "moved")
    assert compute_fingerprint(read_data(tmp_path / "moved")) == compute_fingerprint(sets)


def recolour(root: Path) -> None:
    path = next((root / "imagenette_160" / "val").rglob("*.JPEG"))
    Image.new("RGB", (64, 64)).save(path)


def relabel(root: Path) -> None:
    path = root / "mini_coco_det" / "train" / "labels.json"
    path.write_text(path.read_text().replace('"name": "cat"', '"name": "cow"'))


def erase(root: Path) -> None:
    path = next((root / "mini_voc_seg" / "train").glob("*.png"))
    with Image.open(path) as mask:
        Image.new("L", mask.size).save(path)


@pytest.mark.parametrize("change", [recolour, relabel, erase])
def test_other_pictures_or_labels_have_another_fingerprint(
    sets: DataSets, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    root = write_tiny_sets(tmp_path)
    assert compute_fingerprint(read_data(root)) == compute_fingerprint(sets)
    change(root)
    assert compute_fingerprint(read_data(root)) != compute_fingerprint(sets)
