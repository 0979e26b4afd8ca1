"""Masks in the folders that people keep them in, and what their values become."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.data.layouts.odd_boxes import HEIGHT, WIDTH, coco, draw, rows
from tests.training.data.layouts.odd_others import masks
from training.data.datasets import DataError, DataSets, DataWarning, load_segmentation, read_mask
from training.data.sources import read_data
from training.data.taxonomy import VOID


def write_data_file(root: Path, lines: str) -> Path:
    path = root / "data.toml"
    path.write_text(f'[[source]]\ntask = "segmentation"\npath = "."\n{lines}\n')
    return path


def load_first(sets: DataSets) -> list[int]:
    """The labels that occur in the first mask."""
    assert sets.segmentation is not None
    _, mask = load_segmentation(sets.segmentation.train[0], len(sets.taxonomy.segmentation))
    return [int(label) for label in np.unique(mask)]


def test_values_of_a_data_file_become_labels(tmp_path: Path) -> None:
    masks((0, 128, 200, 255))(tmp_path)
    path = write_data_file(tmp_path, 'values = {0 = "background", 128 = "void", 200 = "crack", 255 = "rust"}')
    sets = read_data(path)
    assert sets.taxonomy.segmentation == ("background", "crack", "rust")
    assert load_first(sets) == [0, 1, 2, VOID]


def test_a_value_that_the_data_file_does_not_name_is_an_error(tmp_path: Path) -> None:
    masks((0, 128, 200))(tmp_path)
    sets = read_data(write_data_file(tmp_path, 'values = {0 = "background", 200 = "crack"}'))
    with pytest.raises(DataError, match=r"train0\.png: the mask holds \[128\]; wanted 0, 200, 255"):
        load_first(sets)


def test_background_comes_first_whatever_its_value(tmp_path: Path) -> None:
    masks((0, 1))(tmp_path)
    sets = read_data(write_data_file(tmp_path, 'values = {0 = "crack", 1 = "background"}'))
    assert sets.taxonomy.segmentation == ("background", "crack")
    assert sets.segmentation is not None
    sample = sets.segmentation.train[0]
    assert read_mask(sample.mask, 2, sample.values)[0, [0, -1]].tolist() == [1, 0]


def test_a_class_may_be_background_by_another_name(tmp_path: Path) -> None:
    masks((0, 1, 2))(tmp_path)
    lines = 'names = ["sky", "crack", "dirt"]\naliases = {sky = "background", dirt = "void"}'
    sets = read_data(write_data_file(tmp_path, lines))
    assert sets.taxonomy.segmentation == ("background", "crack")
    assert load_first(sets) == [0, 1, VOID]


def test_names_may_stand_in_classes_txt(tmp_path: Path) -> None:
    masks((0, 1, 2))(tmp_path)
    (tmp_path / "classes.txt").write_text("background\ncrack\nrust\n")
    assert read_data(tmp_path).taxonomy.segmentation == ("background", "crack", "rust")


def test_masks_that_nothing_names_are_numbered_and_told(tmp_path: Path) -> None:
    masks((0, 1))(tmp_path)
    with pytest.warns(DataWarning, match=r"nothing names the values 0, 1; write classes\.txt there"):
        assert read_data(tmp_path).taxonomy.segmentation == ("background", "class 1")


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{split}/{stem}.jpg", "masks/{split}/{stem}.png"),
        ("{split}/images/{stem}.JPG", "{split}/masks/{stem}_mask.png"),
        ("{split}/{stem}.png", "{split}/{stem}_mask.png"),
        ("{split}/{stem}.webp", "{split}/{stem}.PNG"),
        ("images/{stem}.jpeg", "masks/{stem}.png"),
        ("{stem}.jpg", "{stem}.png"),
    ],
)
def test_pictures_and_masks_in_folders_of_any_kind(image: str, mask: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number in range(4):
            place = {"split": split, "stem": f"{split}{number}"}
            draw(tmp_path / image.format(**place))
            path = tmp_path / mask.format(**place)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8)).save(path)
    (tmp_path / "classes.txt").write_text("background\nline\n")
    sets = read_data(tmp_path)
    assert sets.segmentation is not None
    counts = (len(sets.segmentation.train), len(sets.segmentation.val))
    assert counts == ((4, 4) if "{split}/" in image else (7, 1))
    assert load_first(sets) == [0, 1]


def test_coco_outlines_become_masks_and_crowds_void(tmp_path: Path) -> None:
    def edit(document: dict[str, list[dict[str, object]]], _folder: Path) -> None:
        document["annotations"][1].update(iscrowd=1)
        document["annotations"][2].update(segmentation=[])

    coco(edit)(tmp_path / "segmentation")
    with pytest.warns(DataWarning, match=r"1 annotation-without-outline mended, such as annotation 3"):
        sets = read_data(tmp_path)
    assert sets.taxonomy.segmentation == ("background", "person", "dog")
    assert sets.segmentation is not None
    shown = [set(np.unique(read_mask(sample.mask, 3, sample.values))) for sample in sets.segmentation.train]
    assert shown == [{0, 1}, {0, VOID}, {0, VOID}, {0, 2}]


def test_run_lengths_of_another_picture_are_refused(tmp_path: Path) -> None:
    coco(rows(segmentation=lambda _: {"size": [HEIGHT, WIDTH], "counts": [1, 2]}))(tmp_path / "segmentation")
    with pytest.raises(DataError, match=r"labels\.json, annotation 1: its run lengths do not add up to 64 x 48"):
        read_data(tmp_path)


def test_a_picture_that_lost_its_mask_is_named(tmp_path: Path) -> None:
    masks((0, 1))(tmp_path)
    (tmp_path / "train" / "train1.png").unlink()
    with pytest.raises(DataError, match=r"train1\.jpg: wanted a mask train1\.png"):
        read_data(tmp_path)
    shutil.copy(tmp_path / "train" / "train0.png", tmp_path / "train" / "other.png")
    shutil.copy(tmp_path / "train" / "train0.png", tmp_path / "train" / "train1.png")
    with pytest.raises(DataError, match=r"other\.png: wanted other\.jpg beside it"):
        read_data(tmp_path)
