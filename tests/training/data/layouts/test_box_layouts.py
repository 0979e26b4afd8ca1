"""Where boxes lie after they were read, and which words refuse them."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.layouts.odd_boxes import BOXES, HEIGHT, WIDTH, coco, draw, rows, voc, yolo
from tests.training.data.layouts.test_odd_sets import REFUSED
from training.data.datasets import DataError, DataSets, DataWarning, DetectionSample
from training.data.layouts.readings import clip
from training.data.sources import read_data

XYXY = [4.0, 5.0, 24.0, 17.0]


def first(sets: DataSets) -> DetectionSample:
    assert sets.detection is not None
    return sets.detection.train[0]


EXPORTS = [
    name
    for name in BOXES.keys() - REFUSED.keys() - {"coco_bbox_negative", "coco_rle_list"}
    if name.startswith(("coco", "roboflow", "cvat", "labelstudio"))
]


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_whatever_the_export_the_boxes_are_the_same(name: str, tmp_path: Path) -> None:
    BOXES[name](tmp_path)
    with warnings.catch_warnings(action="ignore"):  # that some boxes come from outlines
        sample = first(read_data(tmp_path))
    assert sample.boxes.tolist() == [XYXY]
    assert sample.labels.tolist() == [0]


def test_a_box_that_comes_from_an_outline_is_told(tmp_path: Path) -> None:
    BOXES["coco_bbox_nan"](tmp_path)
    with pytest.warns(DataWarning, match=r"4 box-from-outline mended, such as annotation 1: bbox is \[NaN, 1, 5, 5\]"):
        read_data(tmp_path)


def test_a_crowd_is_no_target(tmp_path: Path) -> None:
    BOXES["coco_rle_list"](tmp_path)
    sample = first(read_data(tmp_path))
    assert (len(sample.boxes), sample.crowd_boxes.tolist()) == (0, [XYXY])


def test_a_box_is_clipped_to_its_picture(tmp_path: Path) -> None:
    BOXES["coco_bbox_negative"](tmp_path)
    assert first(read_data(tmp_path)).boxes.tolist() == [[0.0, 0.0, 17.0, 10.0]]


def test_a_box_under_two_pixels_is_neither_object_nor_background(tmp_path: Path) -> None:
    coco(rows(bbox=lambda _: [4, 5, 1.5, 9]))(tmp_path)
    sample = first(read_data(tmp_path))
    assert (len(sample.boxes), sample.ignored.tolist()) == (0, [[4.0, 5.0, 5.5, 14.0]])


def test_a_box_of_two_pixels_is_an_object(tmp_path: Path) -> None:
    coco(rows(bbox=lambda _: [4, 5, 2, 2]))(tmp_path)
    assert first(read_data(tmp_path)).boxes.tolist() == [[4.0, 5.0, 6.0, 7.0]]


@pytest.mark.parametrize(
    ("xyxy", "code"),
    [
        ((10, 10, 5, 30), "box-without-area"),
        ((10, 10, 10, 30), "box-without-area"),
        ((10, 10, 30, 10), "box-without-area"),
        ((10, 10, float("inf"), 30), "box-without-area"),
        ((WIDTH, 10, WIDTH + 20, 30), "box-outside-picture"),
        ((10, HEIGHT, 30, HEIGHT + 20), "box-outside-picture"),
        ((-30, 10, 0, 30), "box-outside-picture"),
        ((10, -30, 30, 0), "box-outside-picture"),
    ],
)
def test_a_box_without_area_or_outside_its_picture_is_told_by_a_code(
    xyxy: tuple[float, float, float, float], code: str
) -> None:
    assert clip(xyxy, WIDTH, HEIGHT) == (None, code)


@pytest.mark.parametrize(
    ("corners", "wanted"),
    [
        ((5, 5, 20, 20), [4.0, 4.0, 20.0, 20.0]),  # the development kit counts pixels from 1
        ((0, 0, 63, 47), [0.0, 0.0, 63.0, 47.0]),  # LabelImg from 0
        ((1, 1, WIDTH, HEIGHT), [0.0, 0.0, WIDTH, HEIGHT]),
    ],
)
def test_voc_counts_pixels_from_one_unless_a_box_begins_at_zero(
    corners: tuple[int, int, int, int], wanted: list[float], tmp_path: Path
) -> None:
    voc(corners)(tmp_path)
    assert first(read_data(tmp_path)).boxes.tolist() == [wanted]


def test_what_voc_calls_difficult_is_no_target(tmp_path: Path) -> None:
    voc((5, 5, 20, 20))(tmp_path)
    for path in tmp_path.rglob("*.xml"):
        path.write_text(path.read_text().replace("<name>dog</name>", "<name>dog</name><difficult>1</difficult>"))
    sample = first(read_data(tmp_path))
    assert (len(sample.boxes), len(sample.crowd_boxes)) == (0, 1)


def test_xml_may_lie_beside_the_pictures(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        draw(tmp_path / split / "a.png")
        (tmp_path / split / "a.xml").write_text(
            "<annotation><filename>C:\\pictures\\b.png</filename><object><name>cat</name><bndbox><xmin>1</xmin>"
            "<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
        )
    sets = read_data(tmp_path)
    assert sets.taxonomy.detection == ("cat",)
    assert first(sets).boxes.tolist() == [[0.0, 0.0, 9.0, 9.0]]


def test_yolo_counts_in_shares_of_the_picture(tmp_path: Path) -> None:
    yolo(tmp_path)
    box = first(read_data(tmp_path)).boxes[0]
    np.testing.assert_allclose(box, [0.4 * WIDTH, 0.4 * HEIGHT, 0.6 * WIDTH, 0.6 * HEIGHT], rtol=1e-6)


def yolo_line(line: str) -> Callable[[Path], object]:
    return lambda root: (root / "labels" / "train" / "0.txt").write_text(f"{line}\n")


def yolo_yaml(text: str) -> Callable[[Path], object]:
    return lambda root: (root / "data.yaml").write_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "train: images/train\nval: images/val\nnames: [dog]\n",
        "path: .\ntrain: [images/train]\nval: [images/val]\nnc: 1\nnames: ['dog']\n",
        "train: ../train/images\nval: ../valid/images\nnames: {0: dog}\n",
        "train: train.txt\nval: val.txt\nnames:\n  0: dog\n",
        "names: [dog]\ntrain: images\\train\nvalid: images/val\n",
    ],
)
def test_data_yaml_as_people_write_it(text: str, tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(text)
    for split, folder in (("train", "train"), ("val", "valid")):
        for kind in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / kind).symlink_to(tmp_path / kind / split)
        names = [f"./images/{split}/{number}.jpg\n" for number in range(3)]
        (tmp_path / f"{split}.txt").write_text("".join(names))
    sets = read_data(tmp_path)
    assert sets.detection is not None
    assert [len(sample.boxes) for sample in sets.detection.train] == [1, 1, 1]
    assert len(sets.detection.val) == 3


def test_a_picture_without_a_file_shows_nothing_and_a_polygon_has_a_box(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "labels" / "train" / "1.txt").unlink()
    yolo_line("0 0.25 0.25 0.75 0.25 0.75 0.5")(tmp_path)
    sets = read_data(tmp_path)
    assert sets.detection is not None
    polygon, nothing, _ = sets.detection.train
    np.testing.assert_allclose(polygon.boxes, [[0.25 * WIDTH, 0.25 * HEIGHT, 0.75 * WIDTH, 0.5 * HEIGHT]])
    assert len(nothing.boxes) == 0


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (yolo_line("1 0.5 0.5 0.2 0.2"), r"train/0\.txt, line 1: class 1; wanted 0 to 0, for there are 1 names"),
        (yolo_line("0 32 24 20 20"), r"train/0\.txt, line 1: 32 24 20 20 are no shares of the picture; wanted 0 to 1"),
        (yolo_line("0 0.5 0.5 0.2"), r"train/0\.txt, line 1: 4 columns; wanted class x y width height"),
        (yolo_line("dog 0.5 0.5 0.2 0.2"), r"train/0\.txt, line 1: 'dog 0\.5 .*wanted numbers"),
        (yolo_yaml("train: images/train\nval: images/val\nnc: 2\nnames: [dog]\n"), r"data\.yaml, nc: nc is 2"),
        (yolo_yaml("train: images/train\nval: images/val\nnames: {1: dog}\n"), r"data\.yaml, names: .*without a gap"),
        (
            yolo_yaml("train: images/train\nval: nowhere\nnames: [dog]\n"),
            r"nowhere: no such folder; data\.yaml names it",
        ),
        (lambda root: (root / "data.yaml").unlink(), r"nothing names the classes; write `names: \[cat, dog\]`"),
    ],
)
def test_what_yolo_refuses(spoil: Callable[[Path], object], sentence: str, tmp_path: Path) -> None:
    yolo(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=sentence):
        read_data(tmp_path)


def test_two_pictures_of_one_name_are_told_apart_by_their_folders_or_refused(tmp_path: Path) -> None:
    def named(name: str) -> Callable[[Path], object]:
        def edit(document: dict[str, list[dict[str, object]]], folder: Path) -> None:
            file_name = name.replace("same", folder.parent.name)
            for inner in ("a", "b"):
                draw(folder / inner / file_name.split("\\")[-1], width=30)
            document["images"][0]["file_name"] = file_name

        return coco(edit)

    named("D:\\export\\b\\same.jpg")(tmp_path / "told")
    assert first(read_data(tmp_path / "told")).image.parent.name == "b"
    named("same.jpg")(tmp_path / "refused")
    with pytest.raises(DataError, match=r"image 1: 'train\.jpg' may be .*give each picture a name of its own"):
        read_data(tmp_path / "refused")


def test_a_picture_that_is_not_there_is_named(tmp_path: Path) -> None:
    coco()(tmp_path)
    (tmp_path / "train" / "data" / "train_2.jpg").unlink()
    with pytest.raises(DataError, match=r"labels\.json: image 2 names 'train_2\.jpg', and there is no such picture"):
        read_data(tmp_path)
