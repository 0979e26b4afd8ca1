import hashlib
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.training.data.official_trees import CATEGORIES, COCO_COUNTS, IMAGENETTE_COUNTS, VOC_COUNTS
from tests.training.data.prepare.running import SETS, Run, parse, read_labels, read_manifest, read_pictures, read_tree
from training.config import Task
from training.data.sources import read_data
from training.data.taxonomy import COCO, VOC


def without_sources(tree: dict[str, bytes]) -> dict[str, object]:
    """The manifests name archives and index files; all else must agree."""
    manifests = {name: json.loads(body) for name, body in tree.items() if name.endswith("manifest.json")}
    return {**tree, **{name: {**manifest, "sources": None} for name, manifest in manifests.items()}}


def reverse_order(trees: Path, target: Path) -> Path:
    """Copy official trees, the last file first, and turn the lists in them round."""
    for path in sorted(trees.rglob("*"), reverse=True):
        if not path.is_file():
            continue
        copy = target / path.relative_to(trees)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            copy.write_text("\n".join(reversed(path.read_text().split())))
        elif path.suffix == ".json":
            document = json.loads(path.read_bytes())
            copy.write_text(json.dumps({part: rows[::-1] for part, rows in document.items()}))
        else:
            shutil.copyfile(path, copy)
    return target


def test_sets_are_read_without_a_warning(prepare: Run, tmp_path: Path) -> None:
    assert prepare(tmp_path / "out") == 0

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sets = read_data(tmp_path / "out")
    for split in map(sets.split, Task):
        assert (len(split.train), len(split.val)) == (20, 10)


def test_a_seed_gives_the_same_sets_again_whatever_the_order_of_files(
    prepare: Run, trees: Path, tmp_path: Path
) -> None:
    prepare(tmp_path / "one")
    prepare(tmp_path / "again")
    prepare(tmp_path / "reversed", source=reverse_order(trees, tmp_path / "trees"))

    one, again, turned = (read_tree(tmp_path / name) for name in ("one", "again", "reversed"))
    assert one == again
    assert without_sources(one) == without_sources(turned)


def test_another_seed_draws_other_pictures(prepare: Run, tmp_path: Path) -> None:
    prepare(tmp_path / "zero")
    prepare(tmp_path / "one", "--seed", 1)

    for folder in SETS:
        drawn = [read_pictures(tmp_path / name, folder, "train").keys() for name in ("zero", "one")]
        assert drawn[0] != drawn[1]


def test_archives_give_the_same_sets_as_folders(prepare: Run, archives: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "folders")
    prepare(tmp_path / "archives", source=archives)

    folders, packed = (without_sources(read_tree(tmp_path / name)) for name in ("folders", "archives"))
    assert folders == packed
    sources = {row["file"]: row["sha256"] for row in read_manifest(tmp_path / "archives", "mini_coco_det")["sources"]}
    assert sources["val2017.zip"] == hashlib.sha256((archives / "val2017.zip").read_bytes()).hexdigest()
    assert set(sources) == {
        "annotations_trainval2017.zip",
        "train2017.zip",
        "val2017.zip",
        "annotations/instances_train2017.json",
        "annotations/instances_val2017.json",
    }


def test_pictures_and_masks_are_copied_byte_for_byte(prepare: Run, trees: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "out")

    for folder in SETS:
        for row in read_manifest(tmp_path / "out", folder)["pictures"]:
            body = (tmp_path / "out" / folder / row["file"]).read_bytes()
            assert body == (trees / row["source"]).read_bytes()
            assert row["sha256"] == row["source_sha256"] == hashlib.sha256(body).hexdigest()
    for mask in (tmp_path / "out" / "mini_voc_seg").rglob("*.png"):
        assert mask.read_bytes() == (trees / "VOCdevkit/VOC2012/SegmentationClass" / mask.name).read_bytes()


def test_train_comes_from_train_and_val_from_val(prepare: Run, tmp_path: Path) -> None:
    prepare(tmp_path / "out")

    for folder in SETS:
        for split, other in (("train", "val"), ("val", "train")):
            drawn = read_pictures(tmp_path / "out", folder, split)
            assert not drawn.keys() & read_pictures(tmp_path / "out", folder, other).keys()
            if folder != "mini_voc_seg":
                assert all(f"{split}2017/" in row["source"] or f"/{split}/" in row["source"] for row in drawn.values())
            else:
                assert all(picture_id.startswith(f"2007_{split}") for picture_id in drawn)


def test_per_class_quotas_are_kept(prepare: Run, tmp_path: Path) -> None:
    words = ["--train-per-class", 3, "--val-per-class", 2, "--train-total", 30, "--val-total", 20]
    prepare(tmp_path / "out", "--tasks", "classification", *words)

    for split, count in (("train", 3), ("val", 2)):
        folders = list((tmp_path / "out" / "imagenette_160" / split).iterdir())
        assert [len(list(folder.iterdir())) for folder in folders] == [count] * 10


def test_a_picture_counts_for_every_class_that_its_mask_shows(prepare: Run, tmp_path: Path) -> None:
    prepare(tmp_path / "out", "--tasks", "segmentation", "--train-total", 40)

    rows = read_pictures(tmp_path / "out", "mini_voc_seg", "train")
    # Picture 4 shows class 5, and a person as every fourth does; the order is that of the classes, void is none.
    assert rows["2007_train004"]["classes"] == ["bottle", "person"]
    assert rows["2007_train005"]["classes"] == ["bus"]
    assert sum("person" in row["classes"] for row in rows.values()) == 10 + 2


def test_every_class_is_drawn_though_the_quota_is_one(prepare: Run, tmp_path: Path) -> None:
    prepare(tmp_path / "out", "--tasks", "segmentation")

    rows = read_pictures(tmp_path / "out", "mini_voc_seg", "train").values()
    assert {label for row in rows for label in row["classes"]} == set(VOC[1:])


def test_a_shortage_is_named(prepare: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(tmp_path / "out", "--tasks", "detection", "--train-per-class", 6, "--train-total", 99)

    told = capsys.readouterr().out
    assert "note: detection train: the quota of 6 a class is not met: bottle 4\n" in told
    # 32 pictures, of which one shows nothing, one a crowd and one a box of 7 px.
    assert "note: detection train: 29 of the 99 pictures wanted, the release has no more\n" in told


def test_summary_counts_pictures_of_each_class(
    prepare: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path / "out", "--tasks", "detection")

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["pictures", "20", "10"] in rows
    drawn = read_pictures(tmp_path / "out", "mini_coco_det", "train").values()
    cats = sum("cat" in row["classes"] for row in drawn)
    assert next(row for row in rows if row[0] == "cat")[1] == str(cats)


def test_both_splits_have_the_same_categories_though_the_releases_number_them_otherwise(
    prepare: Run, tmp_path: Path
) -> None:
    prepare(tmp_path / "out")

    train, val = (read_labels(tmp_path / "out", split) for split in ("train", "val"))
    assert train["categories"] == val["categories"]
    assert {row["name"]: row["id"] for row in val["categories"]} == CATEGORIES["train"]
    names = {number: name for name, number in CATEGORIES["train"].items()}
    rows = read_pictures(tmp_path / "out", "mini_coco_det", "val")
    for image in val["images"]:
        shown = {names[a["category_id"]] for a in val["annotations"] if a["image_id"] == image["id"]}
        assert shown == set(rows[Path(image["file_name"]).stem]["classes"])


def test_crowds_stay_in_a_picture_but_do_not_make_it_one_to_draw(prepare: Run, trees: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "out", "--tasks", "detection", "--train-total", 99)

    drawn = {image["id"] for image in read_labels(tmp_path / "out", "train")["images"]}
    assert not drawn & {1004, 1005, 1006}  # only a crowd, only a tiny box, nothing
    official = json.loads((trees / "annotations/instances_train2017.json").read_bytes())["annotations"]
    wanted = {(row["id"], row["iscrowd"], *row["bbox"]) for row in official if row["image_id"] in drawn}
    written = read_labels(tmp_path / "out", "train")["annotations"]
    assert {(row["id"], row["iscrowd"], *row["bbox"]) for row in written} == wanted
    assert sum(row["iscrowd"] for row in written) == 4


def test_all_keeps_every_picture_and_every_class(trees: Path, tmp_path: Path) -> None:
    options = parse("--from", trees, "--out", tmp_path / "out", "--all")
    assert options.run(options) == 0

    for folder, counts in zip(SETS, (VOC_COUNTS, COCO_COUNTS, IMAGENETTE_COUNTS), strict=True):
        factor = 10 if folder == "imagenette_160" else 1
        for split in ("train", "val"):
            assert len(read_pictures(tmp_path / "out", folder, split)) == factor * counts[split]
    assert read_manifest(tmp_path / "out", "mini_coco_det")["classes"] == ["person", "cat", "dog", "bottle"]
    read_data(tmp_path / "out")


def test_detection_classes_can_be_the_most_frequent_in_train(prepare: Run, tmp_path: Path) -> None:
    # 32 train pictures: person in 11 of them; cat in 11 - 1, because 4 shows only a crowd; dog in 10 - 1; bottle in 4.
    prepare(tmp_path / "out", "--tasks", "detection", "--detection-classes", 2)

    assert read_manifest(tmp_path / "out", "mini_coco_det")["classes"] == ["person", "cat"]


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [("cat,unicorn", "--detection-classes has 'unicorn'"), ("5", "--detection-classes is 5; the train file has 4")],
)
def test_strange_detection_classes_are_refused(
    prepare: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], classes: str, sentence: str
) -> None:
    assert prepare(tmp_path / "out", "--detection-classes", classes) == 1

    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_out_is_looked_at_before_the_releases(prepare: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").touch()

    assert prepare(tmp_path / "out", source=tmp_path / "nowhere") == 1

    assert "exists already" in capsys.readouterr().err


def test_an_out_that_has_something_in_it_is_refused(
    prepare: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    assert prepare(tmp_path) == 1

    assert (
        capsys.readouterr().err
        == f"unihead-data prepare: {tmp_path}: exists already; delete it or choose another --out\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "words", [["--max-side", "0"], ["--tasks", "depth"], ["--mirror", "file:///etc"], ["--download"]]
)
def test_bad_options_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse("--from", "releases", "--out", "out", *words)

    assert words[0] in capsys.readouterr().err


def test_defaults_are_240_and_60_pictures_and_10_classes(trees: Path, tmp_path: Path) -> None:
    options = parse("--from", trees, "--out", tmp_path / "out", "--tasks", "classification")
    assert options.run(options) == 0

    arguments = read_manifest(tmp_path / "out", "imagenette_160")["arguments"]
    assert (arguments["train_total"], arguments["val_total"], arguments["detection_classes"]) == (240, 60, "10")


def test_coco80_is_all_classes_in_coco_order(prepare: Run, tmp_path: Path) -> None:
    prepare(tmp_path / "out", "--tasks", "detection", "--detection-classes", "coco80")

    classes = read_manifest(tmp_path / "out", "mini_coco_det")["classes"]
    assert classes == [name for name in COCO if name in CATEGORIES["train"]]


def test_the_command_runs_without_the_training_extra(trees: Path, tmp_path: Path) -> None:
    code = """
import sys
for name in ("torch", "torchvision", "rich", "typer"):
    sys.modules[name] = None
from tests.training.data.prepare.running import parse
options = parse("--from", sys.argv[1], "--out", sys.argv[2], "--tasks", "classification", "--train-total", 10)
sys.exit(options.run(options))
"""
    subprocess.run([sys.executable, "-c", code, str(trees), str(tmp_path / "out")], check=True, capture_output=True)

    assert (tmp_path / "out" / "imagenette_160" / "manifest.json").is_file()
