import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.make_sets import COCO_IDS, VOC_LABELS, write_palette_mask
from tests.training.there import there
from training.data.datasets import (
    DataError,
    DataWarning,
    DetectionSample,
    load_detection,
    load_image,
    load_segmentation,
    read_mask,
)
from training.data.mini_sets import read_classification, read_detection, read_mini_sets, read_segmentation
from training.data.taxonomy import ANY_CLASS, COCO, IMAGENETTE, VOC, VOID


@pytest.fixture
def copied(tiny_sets: Path, tmp_path: Path) -> Path:
    """A copy of the tiny sets to spoil."""
    return Path(shutil.copytree(tiny_sets, tmp_path / "sets"))


def test_the_three_layouts_are_read(tiny_sets: Path) -> None:
    sets = read_mini_sets(tiny_sets)
    assert (len(there(sets.segmentation).train), len(there(sets.segmentation).val)) == (6, 4)
    assert (len(there(sets.detection).train), len(there(sets.detection).val)) == (6, 4)
    assert (len(there(sets.classification).train), len(there(sets.classification).val)) == (6, 4)


def test_a_mask_lies_beside_its_picture(tiny_sets: Path) -> None:
    for sample in read_segmentation(tiny_sets / "mini_voc_seg").train:
        image, mask = load_segmentation(sample, len(VOC))
        assert sample.mask == sample.image.with_suffix(".png")
        assert image.shape == (*mask.shape, 3)
        assert set(np.unique(mask)) <= {0, *VOC_LABELS, VOID}


def test_detection_classes_are_joined_by_name_though_the_ids_differ(tiny_sets: Path) -> None:
    split = read_detection(tiny_sets / "mini_coco_det")
    assert not COCO_IDS["train"].items() & COCO_IDS["val"].items()
    for samples in (split.train, split.val):
        for sample in samples:
            # The picture is the oracle: each class is painted in its own channel.
            image = load_image(sample.image)
            for (x1, y1, x2, y2), label in zip(sample.boxes.astype(int), sample.labels, strict=True):
                colour = image[y1:y2, x1:x2].mean(axis=(0, 1))
                assert COCO[label] == ("cat", "dog", "person")[colour.argmax()]


def test_detection_boxes_are_xyxy(tiny_sets: Path) -> None:
    root = tiny_sets / "mini_coco_det"
    first = json.loads((root / "val" / "labels.json").read_text())["annotations"][0]
    x, y, width, height = first["bbox"]
    sample = read_detection(root).val[0]
    assert sample.boxes[0].tolist() == [x, y, x + width, y + height]
    assert (sample.boxes.dtype.name, sample.labels.dtype.name) == ("float32", "int64")


def test_crowds_are_kept_apart(tiny_sets: Path) -> None:
    split = read_detection(tiny_sets / "mini_coco_det")
    assert [len(sample.crowd_boxes) for sample in split.val] == [1, 0, 0, 0]
    assert COCO[split.val[0].crowd_labels[0]] == "person"
    assert len(split.val[0].boxes) == len(split.val[0].labels) <= 2


def test_a_picture_without_objects_has_empty_boxes(tiny_sets: Path) -> None:
    last = read_detection(tiny_sets / "mini_coco_det").train[-1]
    assert (last.boxes.shape, last.labels.shape, last.crowd_boxes.shape) == ((0, 4), (0,), (0, 4))


def test_classification_labels_are_positions_of_wnids(tiny_sets: Path) -> None:
    wnids = list(IMAGENETTE)
    for sample in read_classification(tiny_sets / "imagenette_160").train:
        assert wnids[sample.label] == sample.image.parent.name


def test_samples_are_sorted_by_name(copied: Path) -> None:
    labels = copied / "mini_coco_det" / "train" / "labels.json"
    document = json.loads(labels.read_text())
    document["images"].reverse()
    labels.write_text(json.dumps(document))
    names = [sample.image.name for sample in read_detection(copied / "mini_coco_det").train]
    assert names == sorted(names)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPEG", ".png"])
def test_picture_endings(copied: Path, suffix: str) -> None:
    first = min((copied / "imagenette_160" / "train").rglob("*.JPEG"))
    first.rename(first.with_suffix(suffix))
    (first.parent / ".DS_Store").touch()
    (first.parent / "._hidden.JPEG").touch()
    assert len(read_classification(copied / "imagenette_160").train) == 6


def test_a_picture_in_train_and_val_by_content_is_dropped_from_train(copied: Path) -> None:
    root = copied / "imagenette_160"
    shutil.copy(next((root / "val").rglob("*.JPEG")), root / "train" / "n01440764" / "copy.JPEG")
    with pytest.warns(DataWarning, match=r"left out of train, because val has them too: copy\.JPEG"):
        split = read_classification(root)
    assert (len(split.train), len(split.val)) == (6, 4)


def test_a_picture_in_train_and_val_by_name_is_dropped_from_train(copied: Path) -> None:
    folder = copied / "mini_voc_seg"
    stem = min((folder / "val").glob("*.jpg")).stem
    for suffix in (".jpg", ".png"):
        shutil.copy(min((folder / "train").glob(f"*{suffix}")), folder / "train" / f"{stem}{suffix}")
    with pytest.warns(DataWarning, match=stem):
        split = read_segmentation(folder)
    assert (len(split.train), len(split.val)) == (6, 4)


def test_faulty_boxes_are_left_out_with_a_count(copied: Path) -> None:
    labels = copied / "mini_coco_det" / "val" / "labels.json"
    document = json.loads(labels.read_text())
    row = document["annotations"][0]
    document["annotations"] += [{**row, "id": 98, "bbox": [500, 5, 9, 9]}, {**row, "id": 99, "bbox": [9, 9, -4, 4]}]
    before = sum(len(sample.boxes) for sample in read_detection(copied / "mini_coco_det").val)
    labels.write_text(json.dumps(document))
    with pytest.warns(DataWarning, match="left out 2 boxes"):
        split = read_detection(copied / "mini_coco_det")
    assert sum(len(sample.boxes) for sample in split.val) == before


def rename_a_class(root: Path) -> None:
    labels = root / "mini_coco_det" / "train" / "labels.json"
    labels.write_text(labels.read_text().replace('"name": "dog"', '"name": "hound"'))


def spoil_json(root: Path) -> None:
    (root / "mini_coco_det" / "train" / "labels.json").write_text('{"images": [')


def forget_a_field(root: Path) -> None:
    labels = root / "mini_coco_det" / "train" / "labels.json"
    labels.write_text(labels.read_text().replace('"bbox"', '"box"'))


def empty_a_class(root: Path) -> None:
    for picture in (root / "imagenette_160" / "val" / "n01440764").iterdir():
        picture.unlink()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda root: (root / "mini_coco_det/train/labels.json").unlink(), r"train/labels\.json: No such file"),
        (lambda root: (root / "mini_coco_det/val/data/val000000002.jpg").unlink(), r"val000000002\.jpg: no such file"),
        (rename_a_class, r"train/labels\.json: category 2 is named 'hound'"),
        (spoil_json, r"train/labels\.json: Expecting value"),
        (forget_a_field, r"train/labels\.json: an entry lacks a field .*'bbox'"),
        (lambda root: (root / "mini_voc_seg/train/2007_train_001.png").unlink(), r"train_001\.jpg: has no mask"),
        (lambda root: (root / "mini_voc_seg/train/2007_train_001.jpg").unlink(), r"train_001\.png: has no picture"),
        (lambda root: shutil.rmtree(root / "mini_voc_seg/val"), "mini_voc_seg/val: no such folder"),
        (lambda root: shutil.rmtree(root / "imagenette_160/val"), "imagenette_160/val: no such folder"),
        (
            lambda root: (root / "imagenette_160/val/n99999999").mkdir(),
            "n99999999: the folder is not named after a class",
        ),
        (empty_a_class, "imagenette_160/val/n01440764: holds no picture"),
    ],
)
def test_what_is_missing_or_unknown_is_an_error_that_names_the_file(
    copied: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    spoil(copied)
    with pytest.raises(DataError, match=sentence):
        read_mini_sets(copied)


def test_a_palette_mask_gives_its_ids_not_its_colours(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 20], [VOID, 15, 0]], dtype=np.uint8)
    write_palette_mask(tmp_path / "mask.png", mask)
    assert read_mask(tmp_path / "mask.png", 21).tolist() == mask.tolist()


def test_a_grey_mask_gives_its_ids(tmp_path: Path) -> None:
    mask = np.array([[0, 7], [VOID, 20]], dtype=np.uint8)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", 21).tolist() == mask.tolist()


def test_a_mask_of_colours_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=r"mask\.png: the mask's mode is RGB, it stores colours; wanted P or L"):
        read_mask(tmp_path / "mask.png", 21)


def test_a_mask_value_that_is_no_class_is_refused(tmp_path: Path) -> None:
    write_palette_mask(tmp_path / "mask.png", np.array([[0, 21, 254, VOID]], dtype=np.uint8))
    with pytest.raises(DataError, match=r"mask\.png: the mask holds \[21, 254\]; wanted classes 0\.\.20 or void 255"):
        read_mask(tmp_path / "mask.png", 21)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"no picture"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spoilt.png").write_bytes(content)
    with pytest.raises(DataError, match=r"spoilt\.png"):
        read_mask(tmp_path / "spoilt.png", 21)
    with pytest.raises(DataError, match=r"spoilt\.png"):
        load_image(tmp_path / "spoilt.png")


def test_a_mask_cut_short_is_named(tmp_path: Path) -> None:
    write_palette_mask(tmp_path / "mask.png", np.random.default_rng(0).integers(0, 21, (90, 90), dtype=np.uint8))
    (tmp_path / "mask.png").write_bytes((tmp_path / "mask.png").read_bytes()[:3000])
    with pytest.raises(DataError, match=r"mask\.png"):
        read_mask(tmp_path / "mask.png", 21)


def test_a_mask_of_another_size_than_its_picture_is_refused(copied: Path) -> None:
    sample = read_segmentation(copied / "mini_voc_seg").val[0]
    write_palette_mask(sample.image.with_suffix(".png"), np.zeros((5, 7), dtype=np.uint8))
    with pytest.raises(DataError, match=r"2007_val_000\.png: the mask is 7 x 5, its picture"):
        load_segmentation(sample, 21)


def test_crowds_and_unsure_boxes_are_ignored_each_for_its_class(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "one.png")
    corners = np.array([[0, 0, 10, 10], [5, 5, 20, 20]], dtype=np.float32)
    sample = DetectionSample(
        tmp_path / "one.png",
        boxes=corners[:1],
        labels=np.array([2]),
        crowd_boxes=corners[1:],
        crowd_labels=np.array([1]),
        scores=np.array([0.5], dtype=np.float32),
        ignored=corners,
        ignored_labels=np.array([0, ANY_CLASS]),
    )
    image, boxes = load_detection(sample, 4)
    assert image.shape == (30, 40, 3)
    assert (boxes.boxes.tolist(), boxes.labels.tolist()) == ([[0, 0, 10, 10]], [2])
    assert boxes.scores is not None
    assert boxes.scores.tolist() == [0.5]
    assert boxes.ignored.tolist() == [*corners.tolist(), corners[1].tolist()]
    assert boxes.ignored_labels.tolist() == [0, ANY_CLASS, 1]
    assert boxes.areas.shape == (0, 4)


def test_classes_that_a_source_does_not_know_are_unknown_in_the_whole_picture(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "one.png")
    nothing, none = np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.int64)
    _, boxes = load_detection(DetectionSample(tmp_path / "one.png", nothing, none, nothing, none, known=(0, 3)), 4)
    assert boxes.areas.tolist() == [[0, 0, 40, 30]]
    assert boxes.unknown.tolist() == [[False, True, True, False]]
