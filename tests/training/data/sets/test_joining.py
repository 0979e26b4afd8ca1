"""Sources that are joined by name: which label a class has, and which pictures are learned from."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.layouts.odd_boxes import classes, coco, draw, rows, yolo
from tests.training.data.layouts.odd_others import folders, masks
from training.data.datasets import DataError, DataSets, DataWarning
from training.data.sources import read_data
from training.data.taxonomy import ANY_CLASS


def read(root: Path, *sources: str, head: str = "") -> DataSets:
    """Read a data file of these sources, each the lines of one."""
    path = root / "data.toml"
    path.write_text(head + "".join(f"[[source]]\n{source}\n" for source in sources))
    return read_data(path)


def detection(path: str, *lines: str) -> str:
    return "\n".join(['task = "detection"', f'path = "{path}"', *lines])


def test_classes_of_two_sources_are_joined_by_name_and_aliases_come_first(tmp_path: Path) -> None:
    coco()(tmp_path / "one")
    coco(classes(person="hound", dog="cat"))(tmp_path / "two")
    sets = read(tmp_path, detection("one"), detection("two", 'aliases = {hound = "dog"}'))
    assert sets.taxonomy.detection == ("person", "dog", "cat")
    assert sets.detection is not None
    assert [sample.labels.tolist() for sample in sets.detection.train] == [[0], [1], [0], [1], [1], [2], [1], [2]]


def test_what_a_source_does_not_label_is_unknown_in_its_pictures(tmp_path: Path) -> None:
    coco()(tmp_path / "one")
    yolo(tmp_path / "two")
    sets = read(tmp_path, detection("one"), detection("two"))
    assert sets.detection is not None
    assert [sample.known for sample in sets.detection.train] == [None] * 4 + [(1,)] * 3
    sets = read(tmp_path, detection("one", 'known = ["dog"]'), detection("two", 'known = "all"'))
    assert sets.detection is not None
    assert [sample.known for sample in sets.detection.train] == [(1,)] * 4 + [None] * 3


def test_scores_make_objects_and_a_band_that_is_neither(tmp_path: Path) -> None:
    def score(document: dict[str, list[dict[str, object]]], _folder: Path) -> None:
        for row, value in zip(document["annotations"], (0.9, 0.3, 0.2, 0.1), strict=True):
            row.update(image_id=1, score=value)

    coco(score)(tmp_path)
    sets = read(tmp_path, detection(".", "min_score = 0.3", "unsure_score = 0.15"))
    assert sets.detection is not None
    sample = sets.detection.train[0]
    assert sample.scores is not None
    np.testing.assert_allclose(sample.scores, [0.9, 0.3], rtol=1e-6)
    assert (len(sample.boxes), len(sample.ignored)) == (2, 1)
    assert [sets.taxonomy.detection[label] for label in sample.ignored_labels] == ["person"]


def test_other_classes_are_an_error_or_void_or_nothing(tmp_path: Path) -> None:
    coco()(tmp_path)
    head = '[classes]\ndetection = ["dog"]\n'
    with pytest.raises(DataError, match=r"has the class 'person', which is none of the 1 of detection; write aliases"):
        read(tmp_path, detection("."), head=head)
    counts = {}
    for word in ("void", "background"):
        sets = read(tmp_path, detection(".", f'others = "{word}"'), head=head)
        assert sets.detection is not None
        assert sets.taxonomy.detection == ("dog",)
        counts[word] = [sum(len(each) for each in (one.boxes, one.ignored)) for one in sets.detection.train]
        assert all((one.ignored_labels == ANY_CLASS).all() for one in sets.detection.train)
    assert counts == {"void": [1, 1, 1, 1], "background": [0, 1, 0, 1]}


def test_a_class_of_voc_is_found_in_coco_s_list_under_its_name_there(tmp_path: Path) -> None:
    coco(classes(person="aeroplane", dog="tvmonitor"))(tmp_path)
    sets = read(tmp_path, detection("."), head='[classes]\ndetection = "coco"\n')
    assert sets.detection is not None
    names = sets.taxonomy.detection
    assert [names[sample.labels[0]] for sample in sets.detection.train[:2]] == ["airplane", "tv"]


def test_the_same_thing_in_masks_and_boxes_is_found_by_name_or_given(tmp_path: Path) -> None:
    masks((0, 1, 2, 3))(tmp_path / "walls")
    coco(classes(person="crack", dog="tv"))(tmp_path / "boxes")
    walls = 'task = "segmentation"\npath = "walls"\nnames = ["background", "crack", "tvmonitor", "hole"]'
    assert read(tmp_path, walls, detection("boxes")).taxonomy.same == (("crack", "crack"), ("tvmonitor", "tv"))
    sets = read(tmp_path, walls, detection("boxes"), head='[same]\nhole = "crack"\n')
    assert ("hole", "crack") in sets.taxonomy.same
    with pytest.raises(DataError, match=r"'hole' = 'hollow', and 'hollow' is no class of the data"):
        read(tmp_path, walls, detection("boxes"), head='[same]\nhole = "hollow"\n')


def test_weights_are_those_of_the_sources(tmp_path: Path) -> None:
    coco()(tmp_path / "one")
    yolo(tmp_path / "two")
    sets = read(tmp_path, detection("one", "weight = 3"), detection("two"))
    assert sets.detection is not None
    assert sets.detection.weights == (3.0,) * 4 + (1.0,) * 3
    sets = read(tmp_path, detection("one"), detection("two"))
    assert sets.detection is not None
    assert sets.detection.weights == ()


def test_a_share_is_held_out_of_each_class_the_same_in_every_run(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for number in range(10):
            draw(tmp_path / name / f"{number}.jpg")
    sets, again = (read_data(tmp_path) for _ in range(2))
    assert sets.classification is not None
    assert sorted(sample.label for sample in sets.classification.val) == [0, 1]
    assert (len(sets.classification.train), sets) == (18, again)
    draw(tmp_path / "cat" / "more.jpg")
    grown = read_data(tmp_path)
    assert grown.classification is not None
    moved = {sample.image for sample in sets.classification.val} ^ {one.image for one in grown.classification.val}
    assert len(moved) <= 2  # one came, so that another may have left


def test_what_is_measured_is_not_learned(tmp_path: Path) -> None:
    coco()(tmp_path)
    shutil.copytree(tmp_path / "train", tmp_path / "chosen")
    shutil.copy(tmp_path / "train" / "data" / "train_1.jpg", tmp_path / "val" / "data" / "val_1.jpg")
    labels = json.loads((tmp_path / "chosen" / "labels.json").read_text())
    labels["images"], labels["annotations"] = labels["images"][1:2], labels["annotations"][1:2]
    (tmp_path / "chosen" / "labels.json").write_text(json.dumps(labels))
    with pytest.warns(DataWarning, match=r"left out of train, .*: train_1\.jpg, train_2\.jpg"):
        sets = read(tmp_path, detection("."), detection("chosen", 'split = "choose"'))
    assert sets.detection is not None
    assert [sample.image.name for sample in sets.detection.train] == ["train_3.jpg", "train_4.jpg"]
    assert [sample.image.name for sample in sets.detection.choose] == ["train_2.jpg"]


def test_names_that_count_are_no_sign_of_the_same_picture(tmp_path: Path) -> None:
    yolo(tmp_path)  # 0.jpg, 1.jpg and 2.jpg in both splits
    sets = read_data(tmp_path)
    assert sets.detection is not None
    assert len(sets.detection.train) == 3


@pytest.mark.parametrize(
    ("write", "lines", "sentence"),
    [
        (folders(), ['path = "nowhere"'], r"nowhere: not below .*; give the folder as --root, or as UNIHEAD_DATA"),
        (folders(), ['path = "."', 'layout = "folders"', 'names = ["a"]'], r"names its classes itself: cat, dog"),
        (
            folders(),
            ['path = "."', 'aliases = {cow = "cat"}'],
            r"aliases has 'cow', which is no class there; it has cat",
        ),
        (folders(), ['path = "."', 'known = ["cow"]'], r"known has 'cow', which is no class of the data"),
        (folders(), ['path = "."', 'split = "choose"'], r"has no split 'choose', only train, val"),
        (folders(), ['path = "."', "hold_out = 0.5"], r"has a val of its own; take hold_out out"),
        (folders(), ['path = "train"'], r'train: is not split; write split = "train" and hold_out = 0\.1'),
        (
            folders(),
            ['path = "train"', 'split = "train"'],
            r"has no picture in val; .* hold_out = 0\.1, a share of train",
        ),
        (yolo, ['path = "."'], r"is no set for classification; wanted one of"),
    ],
)
def test_a_source_that_cannot_be_used_says_what_to_do(
    write: Callable[[Path], object], lines: list[str], sentence: str, tmp_path: Path
) -> None:
    write(tmp_path)
    with pytest.raises(DataError, match=sentence), warnings.catch_warnings(action="ignore"):
        read(tmp_path, "\n".join(['task = "classification"', *lines]))


def test_rows_without_area_are_left_out_and_told(tmp_path: Path) -> None:
    coco(rows(bbox=lambda _: [4, 5, 0, 9]))(tmp_path)
    with pytest.warns(DataWarning, match=r"labels\.json: 4 box-without-area mended, such as annotation 1: x, y, width"):
        read_data(tmp_path)
