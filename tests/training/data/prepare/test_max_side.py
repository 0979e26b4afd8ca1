from pathlib import Path

from tests.training.data.prepare.running import Run, read_labels, read_tree
from tests.training.there import there
from training.data.datasets import load_segmentation
from training.data.sources import read_data


def test_max_side_scales_boxes_and_masks_with_the_picture(prepare: Run, tmp_path: Path) -> None:
    prepare(tmp_path / "full")
    prepare(tmp_path / "half", "--max-side", 48)

    assert read_tree(tmp_path / "half").keys() == read_tree(tmp_path / "full").keys()
    for full, half in zip(*(read_labels(tmp_path / n, "train")["annotations"] for n in ("full", "half")), strict=True):
        assert half["bbox"] == [side / 2 for side in full["bbox"]]
        assert half["area"] == full["area"] / 4
    assert {(i["width"], i["height"]) for i in read_labels(tmp_path / "half", "train")["images"]} == {(48, 32)}
    whole, halved = (read_data(tmp_path / name) for name in ("full", "half"))
    for large, small in zip(there(whole.segmentation).train, there(halved.segmentation).train, strict=True):
        image, mask = load_segmentation(small, 21)
        assert image.shape == (32, 48, 3)
        assert (mask == load_segmentation(large, 21)[1][1::2, 1::2]).all()


def test_max_side_scales_each_side_of_a_box_by_its_own_factor(prepare: Run, tmp_path: Path) -> None:
    prepare(tmp_path / "out", "--tasks", "detection", "--train-total", 99, "--max-side", 50)

    labels = read_labels(tmp_path / "out", "train")
    assert {(image["width"], image["height"]) for image in labels["images"]} == {(50, 33)}
    # x 8.5, y 10, width 40, height 30 of 96 x 64; times 50 / 96 across and 33 / 64 down.
    assert labels["annotations"][0]["bbox"] == [4.43, 5.16, 20.83, 15.47]


def test_max_side_leaves_smaller_pictures_alone(prepare: Run, tmp_path: Path) -> None:
    prepare(tmp_path / "full", "--tasks", "segmentation")
    prepare(tmp_path / "same", "--tasks", "segmentation", "--max-side", 96)

    full, same = (read_tree(tmp_path / name) for name in ("full", "same"))
    del full["mini_voc_seg/manifest.json"], same["mini_voc_seg/manifest.json"]
    assert full == same
