import json
import shutil
from pathlib import Path

import pytest

from tests.training.data.official_trees import put
from tests.training.data.prepare.running import SETS, Run, read_manifest, read_pictures

VOC = "VOCdevkit/VOC2012"
EVERYTHING = ("--train-total", 999, "--val-total", 999)


@pytest.fixture
def copy(trees: Path, tmp_path: Path) -> Path:
    """A copy of the small releases, to be spoilt."""
    return Path(shutil.copytree(trees, tmp_path / "copy"))


def test_no_content_is_on_two_sides(prepare: Run, copy: Path, tmp_path: Path) -> None:
    # Every kind of overlap at once: within a task, and between two tasks in both directions.
    shutil.copyfile(copy / "val2017/000000005001.jpg", copy / "train2017/000000001001.jpg")
    shutil.copyfile(copy / "val2017/000000005002.jpg", copy / f"{VOC}/JPEGImages/2007_train003.jpg")
    shutil.copyfile(
        copy / f"{VOC}/JPEGImages/2007_val003.jpg", copy / "imagenette2-160/train/n01440764/n01440764_train0.JPEG"
    )
    prepare(tmp_path / "out", *EVERYTHING, source=copy)

    owners: dict[str, set[tuple[str, str]]] = {}
    for folder in SETS:
        for row in read_manifest(tmp_path / "out", folder)["pictures"]:
            owners.setdefault(row["sha256"], set()).add((folder, row["split"]))
    assert all(len(sides) == 1 for sides in owners.values())


def test_a_picture_on_two_sides_stays_in_val_is_named_and_replaced(
    prepare: Run, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy / "imagenette2-160"
    tench = "n01440764/n01440764"
    words = ("--tasks", "segmentation,classification", "--train-per-class", 4, "--train-total", 40)
    prepare(tmp_path / "clean", *words, "--val-total", 30, source=copy)
    drawn = [p for p in read_pictures(tmp_path / "clean", "imagenette_160", "train") if p.startswith("n01440764")]
    shutil.copyfile(folder / "val" / f"{tench}_val0.JPEG", folder / "train" / f"n01440764/{drawn[0]}.JPEG")
    capsys.readouterr()

    prepare(tmp_path / "out", *words, "--val-total", 30, source=copy)

    redrawn = [p for p in read_pictures(tmp_path / "out", "imagenette_160", "train") if p.startswith("n01440764")]
    assert len(redrawn) == 4
    assert drawn[0] not in redrawn
    told = capsys.readouterr().out
    reason = "classification train: left out, because classification val has the same picture"
    assert f"note: {reason}: {drawn[0]}\n" in told


def test_a_train_picture_that_the_val_list_names_is_never_drawn(
    prepare: Run, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (copy / f"{VOC}/ImageSets/Segmentation/train.txt").open("a") as listed:
        listed.writelines(f"2007_val{number:03d}\n" for number in range(20))  # only one of them is drawn for val

    prepare(tmp_path / "out", *EVERYTHING[:2], "--tasks", "segmentation", "--val-total", 1, source=copy)

    assert all(name.startswith("2007_train") for name in read_pictures(tmp_path / "out", "mini_voc_seg", "train"))
    assert "segmentation val has the same picture: 2007_val000, 2007_val001, " in capsys.readouterr().out


def test_all_drops_only_what_is_on_two_sides(prepare: Run, copy: Path, tmp_path: Path) -> None:
    shutil.copyfile(copy / "val2017/000000005001.jpg", copy / "train2017/000000001001.jpg")
    shutil.copyfile(copy / "train2017/000000001002.jpg", copy / "train2017/000000001003.jpg")  # on one side twice

    prepare(tmp_path / "out", "--all", "--tasks", "detection", source=copy)

    train, val = (read_pictures(tmp_path / "out", "mini_coco_det", split) for split in ("train", "val"))
    assert (len(train), len(val)) == (31, 16)
    assert "000000001001" not in train


def test_a_picture_whose_size_is_not_the_annotated_one_is_left_out(
    prepare: Run, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "annotations/instances_train2017.json"
    document = json.loads(path.read_bytes())
    document["images"][7] |= {"width": 64, "height": 96}
    path.write_text(json.dumps(document))

    prepare(tmp_path / "out", *EVERYTHING, "--tasks", "detection", source=copy)

    assert "the annotation was made for another size: 000000001007\n" in capsys.readouterr().out
    assert "000000001007" not in read_pictures(tmp_path / "out", "mini_coco_det", "train")


def test_a_damaged_picture_ends_the_run_with_its_name(
    prepare: Run, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(copy / "val2017/000000005001.jpg", b"\xff\xd8\xff no more")

    assert prepare(tmp_path / "out", *EVERYTHING, source=copy) == 1

    told = capsys.readouterr().err
    assert told.startswith("unihead-data prepare: val2017/000000005001.jpg: ")
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def spoil_coco(copy: Path, part: str, **changes: object) -> None:
    path = copy / "annotations/instances_train2017.json"
    document = json.loads(path.read_bytes())
    document[part][0] |= changes
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("part", "changes", "sentence"),
    [
        ("categories", {"name": {"id": 3}}, "has the category {'id': 3}; wanted COCO's 80 class names"),
        ("annotations", {"image_id": 77}, "a field or an id that is referred to is missing: 77"),
        ("annotations", {"bbox": [1, 2]}, "wanted a COCO file"),
        ("annotations", {"bbox": None}, "wanted a COCO file"),
        ("annotations", {"bbox": ["a", 1, 2, 3]}, "wanted a COCO file"),
        ("images", {"width": None}, "wanted a COCO file"),
        ("images", {"file_name": "../../../outside.jpg"}, "'../../../outside.jpg' is no file name"),
    ],
)
def test_a_strange_annotation_file_ends_the_run(
    prepare: Run,
    copy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    part: str,
    changes: dict[str, object],
    sentence: str,
) -> None:
    spoil_coco(copy, part, **changes)

    assert prepare(tmp_path / "out", source=copy) == 1

    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b"\xff\xfe"])
def test_what_is_no_annotation_file_ends_the_run(
    prepare: Run, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], body: bytes
) -> None:
    (copy / "annotations/instances_val2017.json").write_bytes(body)

    assert prepare(tmp_path / "out", source=copy) == 1

    assert "annotations/instances_val2017.json: " in capsys.readouterr().err
