from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from service.answers.masks import compress_counts, encode_rle, measure_counts, read_counts
from service.commands.coco import CocoIds, write_dataset, write_results
from service.commands.predict import main
from service.commands.results import Record, ResultFileError
from service.engine.contract import ModelTask
from tests.service.fakes import encode, make_picture

CLASSES: dict[ModelTask, tuple[str, ...]] = {"segment": ("background", "cat"), "detect": ("person", "cat")}
MASK = np.zeros((4, 6), np.uint8)
MASK[1:3, 2:5] = 1
RUNS = [{"label_id": one, "counts": counts} for one, counts in encode_rle(MASK).items()]
RECORDS: list[Record] = [
    {"file": "a/bad.jpg", "error": {"code": "damaged_image", "detail": "cut"}},
    {
        "file": "a/x.jpg",
        "image": {"width": 6, "height": 4},
        "detections": [{"box": [0.5, 1, 3.25, 4], "label": "cat", "label_id": 1, "score": 0.5}],
        "mask": {"encoding": "rle", "size": [4, 6], "segments": RUNS},
    },
    {"file": "b/x.jpg", "image": {"width": 2, "height": 1}, "detections": []},
]
BOX = {"image_id": 2, "category_id": 2, "bbox": [0.5, 1, 2.75, 3], "score": 0.5}
OUTLINE = {
    "image_id": 2,
    "category_id": 3,
    "bbox": [2, 1, 3, 2],
    "segmentation": {"size": [4, 6], "counts": RUNS[1]["counts"]},
    "score": 1.0,
}


def read(path: Path) -> Any:  # noqa: ANN401 - JSON
    return json.loads(path.read_text())


def test_results_are_boxes_and_masks_by_picture_and_category(tmp_path: Path) -> None:
    assert not write_results(tmp_path / "found.json", RECORDS, CocoIds.of(CLASSES))
    assert read(tmp_path / "found.json") == [BOX, OUTLINE]


def test_a_data_set_has_categories_and_pictures(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set.json", lambda: RECORDS, CocoIds.of(CLASSES), CLASSES)
    said = read(tmp_path / "set.json")
    assert said["categories"] == [
        {"id": 1, "name": "person", "supercategory": "box"},
        {"id": 2, "name": "cat", "supercategory": "box"},
        {"id": 3, "name": "cat (mask)", "supercategory": "mask"},
    ]
    assert said["images"] == [
        {"id": 2, "file_name": "a/x.jpg", "width": 6, "height": 4},
        {"id": 3, "file_name": "b/x.jpg", "width": 2, "height": 1},
    ]
    assert said["annotations"] == [
        {"id": 1, "iscrowd": 0, "area": 8.25, "segmentation": [], **BOX},
        {"id": 2, "iscrowd": 0, "area": 6, **OUTLINE},
    ]


@pytest.mark.parametrize("records", [[], RECORDS[:1]])
def test_nothing_is_written_as_nothing(tmp_path: Path, records: list[Record]) -> None:
    write_results(tmp_path / "found.json", records, CocoIds.of(CLASSES))
    write_dataset(tmp_path / "set.json", lambda: records, CocoIds.of(CLASSES), CLASSES)
    assert read(tmp_path / "found.json") == read(tmp_path / "set.json")["images"] == []


def test_numbers_may_be_those_of_an_annotation_file(tmp_path: Path) -> None:
    like = {
        "images": [
            {"id": 70, "file_name": "x.jpg"},
            {"id": 71, "file_name": "b/x.jpg"},
            {"id": 9, "file_name": "bad.jpg"},
        ],
        "categories": [{"id": 48, "name": "cat"}, {"id": 4, "name": "zebra"}],
    }
    (tmp_path / "like.json").write_text(json.dumps(like))
    ids = CocoIds.read(tmp_path / "like.json", [one["file"] for one in RECORDS], CLASSES)
    assert ids.pictures == {"a/bad.jpg": 9, "a/x.jpg": 70, "b/x.jpg": 71}
    person = {"box": [0, 0, 1, 1], "label": "person", "label_id": 0, "score": 0.5}
    records = [*RECORDS[:2], {**RECORDS[2], "detections": [person, person]}]
    assert write_results(tmp_path / "found.json", records, ids) == {"person": 2}
    first, second = read(tmp_path / "found.json")
    assert first == {**BOX, "image_id": 70, "category_id": 48}
    assert second == {**OUTLINE, "image_id": 70, "category_id": 49}


@pytest.mark.parametrize(
    ("content", "names", "said"),
    [
        (b"hello", ["x.jpg"], "no annotation file"),
        (b"[]", ["x.jpg"], "no annotation file"),
        (b'{"images": [], "categories": [{"id": "a", "name": 1}]}', ["x.jpg"], "no annotation file"),
        (b"[" * 100_000, ["x.jpg"], "no annotation file"),
        (b'{"images": [{"id": 1, "file_name": "x.jpg"}], "categories": []}', ["x.jpg", "y.jpg"], "picture y.jpg"),
        (
            b'{"images": [{"id": 1, "file_name": "a/x.jpg"}, {"id": 2, "file_name": "b/x.jpg"}], "categories": []}',
            ["x.jpg"],
            "picture x.jpg",
        ),
    ],
    ids=range(6),
)
def test_an_annotation_file_that_does_not_fit_is_refused(
    tmp_path: Path, content: bytes, names: list[str], said: str
) -> None:
    (tmp_path / "like.json").write_bytes(content)
    with pytest.raises(ResultFileError, match=said):
        CocoIds.read(tmp_path / "like.json", names, CLASSES)


@given_settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.3, 0.9]))
def test_masks_are_measured_as_pycocotools_does(height: int, width: int, seed: int, share: float) -> None:
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    counts = encode_rle(mask).get(1, compress_counts(np.array([mask.size])))
    theirs = {"size": [height, width], "counts": counts.encode()}
    area, box = measure_counts(counts, height)
    assert (area, list(box)) == (coco_mask.area(theirs), coco_mask.toBbox(theirs).tolist())


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=20))
def test_run_lengths_are_read_as_they_were_written(lengths: list[int]) -> None:
    assert read_counts(compress_counts(np.array(lengths))).tolist() == lengths


# By the command


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int | str | None, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code, capsys.readouterr().err


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.png").write_bytes(encode(make_picture(48 + number, 32, seed=number)))
    (tmp_path / "photos" / "1bad.png").write_text("hello")
    return tmp_path / "photos"


def average_precision(truth: Path, found: Path, kind: str, supercategory: str) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        judged = COCOeval(coco, coco.loadRes(str(found)), kind)
        judged.params.catIds = coco.getCatIds(supNms=[supercategory])
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return float(judged.stats[0])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_pycocotools_finds_in_results_what_the_data_set_has(
    photos: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["found.json"], ["set.json", "--coco-dataset"]):
        name, *rest = words
        code, err = run(capsys, photos, "--coco", tmp_path / name, *rest, "--model", tiny_model)
        assert (code, "3 answered, 1 failed" in err) == (1, True)
    for kind, supercategory in (("bbox", "box"), ("bbox", "mask"), ("segm", "mask")):
        ap = average_precision(tmp_path / "set.json", tmp_path / "found.json", kind, supercategory)
        assert ap == pytest.approx(1)
    coco = COCO(str(tmp_path / "set.json"))
    masks = [one for one in coco.anns.values() if one["segmentation"]]
    assert masks
    for one in masks:
        assert coco.annToMask(one).sum() == one["area"]
    assert sorted(coco.imgs) == [1, 2, 4]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--coco-dataset"], "name it with --coco"),
        (["--coco-like", "x.json"], "name it with --coco"),
        (["--coco", "f", "--coco-dataset", "--coco-like", "x.json"], "leave --coco-like out"),
        (["--coco", "f", "--tasks", "classify"], "--coco writes boxes and masks, and answers have classes alone"),
        (["--coco", "f", "--coco-like", "missing.json"], "no annotation file"),
    ],
)
def test_what_cannot_be_written_is_told_before_the_work(
    photos: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    code, err = run(capsys, photos, *words, "--model", tiny_model)
    assert (code, said in err, "answered" in err) == (2, True, False)


def test_boxes_of_classes_that_a_file_does_not_have_are_told(
    photos: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [{"id": number, "file_name": path.name} for number, path in enumerate(sorted(photos.iterdir()), 1)]
    (tmp_path / "like.json").write_text(json.dumps({"images": images, "categories": [{"id": 7, "name": "person"}]}))
    words: list[str | Path] = [
        "--coco",
        tmp_path / "found.json",
        "--coco-like",
        tmp_path / "like.json",
        "--tasks",
        "detect",
    ]
    _, err = run(capsys, photos, *words, "--model", tiny_model)
    assert "has no category for boxes of bicycle 3" in err
    assert {one["category_id"] for one in read(tmp_path / "found.json")} == {7}


def test_earlier_results_are_in_it_too(
    photos: Path, tmp_path: Path, write_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path / "m.onnx", ("detect",))
    run(capsys, photos / "0.png", "--out", tmp_path / "out", "--model", model)
    found = tmp_path / "found.json"
    run(capsys, photos, "--out", tmp_path / "out", "--resume", "--coco", found, "--model", model)
    assert {one["image_id"] for one in read(found)} == {1, 2, 4}
