from pathlib import Path

import pytest

from tests.training.data.doctor.clean_sets import write_clean_sets, write_official_sets
from training.data.doctor.layouts import LayoutError, find_sets
from training.data.layouts.readings import Layout


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clean = write_clean_sets(tmp_path_factory.mktemp("clean"))
    return write_official_sets(clean, tmp_path_factory.mktemp("official"))


@pytest.mark.parametrize("folder", ["voc", "voc/VOCdevkit", "voc/VOCdevkit/VOC2012"])
def test_voc_is_found_from_each_of_its_upper_folders(folder: str, official: Path) -> None:
    (each,) = find_sets(official / folder)
    assert each.found.layout is Layout.VOC_MASKS
    assert each.found.root == official / "voc" / "VOCdevkit" / "VOC2012"


def test_the_splits_of_coco_are_named_without_their_year(official: Path) -> None:
    (each,) = find_sets(official / "coco")
    places = each.found.places
    assert {name: place.pictures[0].name for name, place in places.items()} == {"train": "train2017", "val": "val2017"}
    assert places["val"].listing == official / "coco" / "annotations" / "instances_val2017.json"


def test_a_set_whose_annotations_are_lost_is_still_coco(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "data").mkdir(parents=True)
        (tmp_path / split / "data" / "a.jpg").touch()
    (each,) = find_sets(tmp_path)
    assert each.found.layout is Layout.COCO


def test_hidden_files_and_folders_are_no_data(tmp_path: Path) -> None:
    (tmp_path / "train" / ".cache").mkdir(parents=True)
    (tmp_path / "train" / ".cache" / "a.jpg").touch()
    with pytest.raises(LayoutError, match="neither it nor a folder in it is a data set"):
        find_sets(tmp_path)


def test_a_data_file_names_the_sets(official: Path, tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text('[[source]]\ntask = "detection"\npath = "coco"\nsplit = "val"\n')
    (each,) = find_sets(tmp_path / "data.toml", official)
    assert (each.name, list(each.found.places)) == ("coco", ["val"])
