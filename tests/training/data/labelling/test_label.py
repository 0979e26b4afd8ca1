"""The whole command: from pictures and tiny teachers to a source that training reads."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from tests.training.data.cli_running import run_data
from tests.training.data.labelling.make_teachers import (
    CLASSES,
    COLOURS,
    DETECTOR,
    FLOAT,
    SHARES,
    write_boxes,
    write_cell_ids,
    write_graph,
    write_toml,
)
from tests.training.data.labelling.running import hash_all, label
from tests.training.there import there
from training.data.datasets import load_segmentation
from training.data.sources import read_data


def test_boxes_become_a_source_with_scores(tmp_path: Path, pictures: Path, detector: Path) -> None:
    out = tmp_path / "out"
    assert label(out, pictures, detector) == 0
    sets = read_data(out / "data.toml")
    split = there(sets.detection)
    samples = {sample.image.name: sample for sample in (*split.train, *split.val)}
    assert sets.taxonomy.detection == CLASSES
    assert len(samples) == 3
    sample = samples["c.JPEG"]
    assert sample.labels.tolist() == [1, 1]
    np.testing.assert_allclose(there(sample.scores), [0.8, 0.4], atol=0.02)
    np.testing.assert_allclose(sample.boxes, [[4, 6, 20, 21], [20, 3, 36, 27]], atol=0.02)
    assert sample.image.read_bytes() == (pictures / "b" / "c.JPEG").read_bytes()
    assert run_data("show", out / "data.toml") == 0
    assert run_data("show", out) == 0  # a folder that is guessed


def test_masks_become_a_source_with_void(tmp_path: Path, pictures: Path, masker: Path) -> None:
    out = tmp_path / "out"
    Image.new("RGB", (8, 8), (120, 0, 0)).save(pictures / "unsure_mask.png")  # its name ends like that of a mask
    assert label(out, pictures, masker) == 0
    sets = read_data(out / "data.toml")
    split = there(sets.segmentation)
    assert sets.taxonomy.segmentation == ("background", *CLASSES)
    found = {}
    for sample in (*split.train, *split.val):
        image, mask = load_segmentation(sample, 4)
        assert image.shape[:2] == mask.shape
        found[sample.image.name] = set(mask.flatten().tolist())
    assert found == {"a.jpg": {1}, "c.JPEG": {2}, "d.webp": {3}, "unsure_mask.png": {255}}
    with Image.open(out / "masks" / "a_mask.png") as stored:
        assert stored.mode == "P"
        assert stored.convert("RGB").getpixel((0, 0)) == (128, 0, 0)  # VOC's first colour
    assert run_data("show", out / "data.toml") == 0


def test_classes_become_folders_and_a_table(tmp_path: Path, pictures: Path, classifier: Path) -> None:
    out = tmp_path / "out"
    for name, colour in COLOURS.items():  # of each class one is held out
        Image.new("RGB", (20, 20), tuple(level // 2 + 90 for level in colour)).save(pictures / f"{name} pale.png")
    Image.new("RGB", (8, 8), (100, 90, 60)).save(pictures / "unsure.png")
    assert label(out, pictures, classifier, more=("--min-probability", "0.5")) == 0
    sets = read_data(out / "data.toml")
    split = there(sets.classification)
    assert sets.taxonomy.classification == CLASSES
    found = {str(sample.image.relative_to(out / "train")): sample.label for sample in (*split.train, *split.val)}
    assert found.items() >= {("red/a.jpg", 0), ("green/b/c.JPEG", 1), ("blue/d pale.png", 2)}
    assert not list(out.rglob("train/*/unsure.png"))
    table = (out / "probabilities.csv").read_text().splitlines()
    assert table[0] == "picture,class,red,green,blue"
    assert len(table) == 8
    assert next(line for line in table if line.startswith("unsure")) == "unsure.png,,0.3922,0.3529,0.2353"
    assert run_data("show", out / "data.toml") == 0


def test_all_tasks_at_once_have_each_picture_once(tmp_path: Path, pictures: Path, detector: Path, masker: Path) -> None:
    out = tmp_path / "out"
    assert label(out, pictures, detector, masker) == 0
    sets = read_data(out / "data.toml")
    boxes, masks = there(sets.detection), there(sets.segmentation)
    assert [sample.image for sample in boxes.val] == [sample.image for sample in masks.val]
    assert run_data("doctor", out / "data.toml") == 0
    assert (out / "images" / "a.jpg").samefile(pictures / "a.jpg")  # a hard link


def test_image_labels_deny_and_affirm(
    tmp_path: Path, pictures: Path, detector: Path, masker: Path, classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {
        "a.jpg": {"absent": ["red"]},
        "b/c.JPEG": {"present": ["green", "yellow"]},
        "z.jpg": {"present": ["green"]},
    }
    (tmp_path / "known.json").write_text(json.dumps(known))
    out = tmp_path / "out"
    more = ("--image-labels", str(tmp_path / "known.json"), "--min-probability", "0.9")
    assert label(out, pictures, detector, masker, classifier, more=more) == 0
    printed = capsys.readouterr().out
    assert "the image labels name 1 classes that no teacher knows, such as 'yellow'" in printed
    assert "the image labels name 1 pictures that are not there, such as 'z.jpg'" in printed
    document = json.loads((out / "labels.json").read_text())
    names = {row["id"]: row["file_name"] for row in document["images"]}
    rows = {name: [row for row in document["annotations"] if names[row["image_id"]] == name] for name in names.values()}
    assert rows["a.jpg"] == []
    affirmed = rows["b/c.JPEG"][1]
    assert affirmed["teacher_score"] == pytest.approx(0.4, abs=0.01)
    assert affirmed["score"] == pytest.approx(affirmed["teacher_score"] ** 0.7022, abs=1e-3)
    assert "teacher_score" not in rows["d.webp"][0]
    masks = [set(np.asarray(Image.open(out / "masks" / f"{name}_mask.png")).flatten().tolist()) for name in "ad"]
    assert masks == [{255}, {255}]
    assert set(np.asarray(Image.open(out / "masks" / "b" / "c_mask.png")).flatten().tolist()) == {2}
    assert [str(path.relative_to(out / "train")) for path in (out / "train").rglob("*.*")] == ["green/b/c.JPEG"]


def test_several_detectors_are_fused_by_weight_and_know_what_they_know(
    tmp_path: Path, pictures: Path, detector: Path
) -> None:
    other = write_boxes(tmp_path / "other.onnx", SHARES[:1])
    write_toml(other, output=DETECTOR, names=("red", "lime", "blue"), more='aliases = { lime = "green" }')
    out = tmp_path / "out"
    assert label(out, pictures, detector, other, more=("--weights", "1,3")) == 0
    document = json.loads((out / "labels.json").read_text())
    assert [row["name"] for row in document["categories"]] == list(CLASSES)
    scores = [row["score"] for row in document["annotations"] if row["image_id"] == 2]
    # Both see the first: (1 + 3) x 0.8 / 2 x 2 / 4; one sees the second: 0.4 x 1 / 4.
    assert scores == pytest.approx([0.8, 0.1], abs=0.01)
    record = json.loads((out / "labelling.json").read_text())
    assert [row["sha256"] for row in record["teachers"]] == [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (detector, other)
    ]
    assert [row["weight"] for row in record["teachers"]] == [1, 3]


def test_the_bytes_do_not_depend_on_how_many_pictures_are_asked_about_at_once(
    tmp_path: Path, pictures: Path, detector: Path, masker: Path
) -> None:
    outs = [tmp_path / "one", tmp_path / "three"]
    for out, jobs in zip(outs, ("1", "3"), strict=True):
        assert label(out, pictures, detector, masker, more=("--jobs", jobs)) == 0
    one, three = map(hash_all, outs)
    assert one == three
    assert {"data.toml", "labels.json", "masks/a_mask.png", "images/b/c.JPEG", "labelling.json"} <= one.keys()


def test_other_rules_ask_nobody_again_and_leave_nothing_of_the_earlier_run(
    tmp_path: Path, pictures: Path, detector: Path, classifier: Path
) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    assert label(out, pictures, detector, classifier) == 0
    journals = {path: path.read_bytes() for path in (out / ".answers").rglob("*.jsonl")}
    assert len(journals) == 2
    rules = ("--min-score", "0.7", "--score-floor", "0.14")
    assert label(out, pictures, detector, more=rules) == 0
    assert {path: path.read_bytes() for path in (out / ".answers").rglob("*.jsonl")} == journals
    assert label(fresh, pictures, detector, more=rules) == 0
    assert hash_all(out) == hash_all(fresh)
    assert not (out / "train").exists()
    assert "min_score = 0.7" in (out / "data.toml").read_text()


def test_a_picture_that_has_changed_is_asked_about_anew(tmp_path: Path, pictures: Path, detector: Path) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    assert label(out, pictures, detector) == 0
    (pictures / "a.jpg").unlink()  # the source has a link to it
    Image.new("RGB", (60, 60), (0, 0, 250)).save(pictures / "a.jpg")
    assert label(out, pictures, detector) == 0
    assert label(fresh, pictures, detector) == 0
    assert hash_all(out) == hash_all(fresh)


def test_bad_pictures_are_named_and_left_out(
    tmp_path: Path, pictures: Path, detector: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "torn.jpg").write_bytes((pictures / "a.jpg").read_bytes()[:300])
    (pictures / "text.png").write_text("no picture")
    out = tmp_path / "out"
    for _ in range(2):  # the second run asks nobody, and says the same
        assert label(out, pictures, detector) == 1
        errors = capsys.readouterr().err
        assert f"left out: {pictures / 'text.png'}: " in errors
        assert f"left out: {pictures / 'torn.jpg'}: " in errors
        assert {path.name for path in (out / "images").rglob("*.*")} == {"a.jpg", "c.JPEG", "d.webp"}
        assert set(json.loads((out / "labelling.json").read_text())["left_out"]) == {"text.png", "torn.jpg"}


def test_where_no_link_can_be_made_pictures_are_copied(
    tmp_path: Path, pictures: Path, detector: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr("training.data.labelling.writing.os.link", refuse)
    out = tmp_path / "out"
    assert label(out, pictures, detector) == 0
    assert not (out / "images" / "a.jpg").samefile(pictures / "a.jpg")
    assert (out / "images" / "a.jpg").read_bytes() == (pictures / "a.jpg").read_bytes()


def refuse(
    capsys: pytest.CaptureFixture[str], out: Path, pictures: Path, *teachers: Path, more: tuple[str, ...] = ()
) -> str:
    assert label(out, pictures, *teachers, more=more) == 2
    return capsys.readouterr().err


def test_what_cannot_begin_says_why(
    tmp_path: Path, pictures: Path, detector: Path, masker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert "--weights has 1 numbers for 2 teachers" in refuse(
        capsys, out, pictures, detector, masker, more=("--weights", "1")
    )
    assert "the same teacher is given twice" in refuse(capsys, out, pictures, detector, detector)
    assert "wanted them in rising order" in refuse(capsys, out, pictures, detector, more=("--min-score", "0.1"))
    assert "none: no such folder" in refuse(capsys, out, tmp_path / "none", detector)
    assert "--out and --pictures lie in each other" in refuse(capsys, pictures / "out", pictures, detector)
    assert "none.toml: No such file" in refuse(capsys, out, pictures, tmp_path / "none.onnx")
    assert not out.exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    assert "mine: exists already, and no earlier run wrote it" in refuse(capsys, tmp_path / "mine", pictures, detector)
    (pictures / "a.png").write_bytes((pictures / "a.jpg").read_bytes())
    assert "a.jpg and a.png would have the same mask" in refuse(capsys, out, pictures, masker)
    (pictures / "val").mkdir()
    assert f"label them one by one: {pictures / 'val'}" in refuse(capsys, out, pictures, detector)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "text.png").write_text("no picture")
    assert "none of its 1 pictures can be read, as text.png: " in refuse(capsys, out, bad, detector)


def test_teachers_of_one_task_have_to_know_the_same_classes(
    tmp_path: Path, pictures: Path, masker: Path, classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    other = write_toml(write_cell_ids(tmp_path / "ids.onnx"), output='kind = "mask-ids"', names=("red", "lime", "blue"))
    assert "does not know 'lime', which another teacher of segmentation does" in refuse(
        capsys, out, pictures, masker, other
    )
    write_toml(tmp_path / "ids.onnx", output='kind = "mask-ids"', names=("blue", "green", "red"))
    assert label(out, pictures, masker, other) == 0
    write_toml(classifier, output='kind = "class-logits"', names=("a/b", "c", "d"))
    assert "no folder can be called 'a/b'" in refuse(capsys, tmp_path / "two", pictures, classifier)


def test_a_teacher_that_answers_something_else_ends_the_run_with_its_name(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_graph(
        tmp_path / "odd.onnx",
        [helper.make_node("Identity", ["images"], ["logits"])],
        {"images": (FLOAT, ["n", 3, 32, 32])},
        {"logits": (FLOAT, 4)},
    )
    write_toml(path, output='kind = "class-logits"')
    error = refuse(capsys, tmp_path / "out", pictures, path)
    assert "odd.onnx: gave [1, 3, 32, 32]; wanted [1, 3]" in error
    assert f"(about {pictures / 'a.jpg'})" in error
