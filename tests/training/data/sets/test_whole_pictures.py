"""Labels of whole pictures: which classes they show, though not where."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.data.layouts.odd_boxes import coco
from tests.training.there import there
from training.data.datasets import DataError, DetectionSample
from training.data.sets.whole_pictures import heed_image_labels
from training.data.sources import read_data
from training.data.taxonomy import ANY_CLASS

BOXES = np.arange(5 * 4, dtype=np.float32).reshape(5, 4)


def make_sample(known: tuple[int, ...] | None = None) -> DetectionSample:
    """Objects of classes 0, 1 and 2, a crowd of 1, unsure boxes of 1, 3 and any class."""
    return DetectionSample(
        Path(),
        BOXES[:3],
        np.array([0, 1, 2]),
        BOXES[3:4],
        np.array([1]),
        scores=np.array([0.5, 0.6, 0.7], dtype=np.float32),
        ignored=BOXES[2:],
        ignored_labels=np.array([1, 3, ANY_CLASS]),
        known=known,
    )


def test_boxes_of_what_a_picture_does_not_show_are_left_out_sure_and_unsure_ones() -> None:
    sample = heed_image_labels(make_sample(), shown=[0, 3], complete=[0, 1, 3], num_classes=6)
    assert (sample.labels.tolist(), sample.boxes.tolist()) == ([0, 2], BOXES[[0, 2]].tolist())
    assert sample.scores is not None
    assert sample.scores.tolist() == pytest.approx([0.5, 0.7])
    assert (len(sample.crowd_boxes), len(sample.crowd_labels)) == (0, 0)
    assert (sample.ignored_labels.tolist(), sample.ignored.tolist()) == ([3, ANY_CLASS], BOXES[3:].tolist())
    assert sample.known is None


def test_what_a_picture_shows_and_no_box_is_of_is_unknown_there() -> None:
    # Of class 3 there is an unsure box, so that its place is known.
    shown = [0, 1, 3, 4]
    assert heed_image_labels(make_sample(), shown, [0, 1, 3, 4], num_classes=6).known == (0, 1, 2, 3, 5)
    assert heed_image_labels(make_sample((0, 4)), shown, [0, 1, 3, 4], num_classes=6).known == (0,)
    assert heed_image_labels(make_sample((0, 2)), shown, [0, 1, 3], num_classes=6).known == (0, 2)


def test_of_other_classes_the_labels_say_nothing() -> None:
    sample = heed_image_labels(make_sample(), shown=[4], complete=[], num_classes=6)
    assert (sample.labels.tolist(), sample.ignored_labels.tolist()) == ([0, 1, 2], [1, 3, ANY_CLASS])
    assert sample.known is None


def read(root: Path, *lines: str) -> list[tuple[list[int], tuple[int, ...] | None]]:
    """Labels of the boxes, and known classes, of the four pictures of train: person, dog, person, dog."""
    source = ['[[source]]\ntask = "detection"\npath = "."', *lines]
    (root / "data.toml").write_text("\n".join(source))
    samples = there(read_data(root / "data.toml").detection).train
    return [(sample.labels.tolist(), sample.known) for sample in samples]


def label_images(document: dict[str, list[dict[str, object]]], _folder: Path) -> None:
    lists = (["person", "dog"], ["person", "dragon"], ["dog"], None)
    for row, names in zip(document["images"], lists, strict=True):
        row.update({} if names is None else {"image_labels": names})


def test_lists_of_a_coco_file_are_heeded_for_the_classes_that_the_data_file_names(tmp_path: Path) -> None:
    coco(label_images)(tmp_path)
    assert read(tmp_path) == [([0], None), ([1], None), ([0], None), ([1], None)]
    assert read(tmp_path, 'image_labels = ["person"]') == [([0], None), ([1], (1,)), ([], None), ([1], None)]
    both = read(tmp_path, 'image_labels = ["person", "dog"]')
    assert both == [([0], (0,)), ([], (1,)), ([], (0,)), ([1], None)]


def test_names_in_lists_follow_aliases(tmp_path: Path) -> None:
    coco(label_images)(tmp_path)
    lines = ('aliases = {person = "human"}', 'image_labels = ["human"]')
    assert read(tmp_path, *lines) == [([0], None), ([1], (1,)), ([], None), ([1], None)]


def test_lists_that_are_not_there_or_of_no_class_are_an_error(tmp_path: Path) -> None:
    coco()(tmp_path)
    with pytest.raises(DataError, match="no picture has a list image_labels; take image_labels out of the data file"):
        read(tmp_path, 'image_labels = ["person"]')
    with pytest.raises(DataError, match="image_labels has 'cow', which is no class of the data"):
        read(tmp_path, 'image_labels = ["cow"]')
