from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.answers.masks import encode_rle
from service.client import Client, Detection
from tests.benchmarks.quality import BOXES, CLASSES, MASKS, Row, count_boxes, format_table, measure
from training.data.taxonomy import VOC
from training.metrics.bootstrap import Interval

SIZE = (40, 30)  # width and height of every picture
CAT = VOC.index("cat")
# What the service says about the picture of that number: label, score, xyxy; 0.9 is above its own threshold.
SAID = {
    1: [("cat", 0.9, (0, 0, 10, 10)), ("cat", 0.8, (0, 0, 10, 11)), ("dog", 0.2, (20, 10, 30, 20))],
    2: [("dog", 0.7, (0, 0, 10, 10)), ("dog", 0.005, (20, 10, 30, 20))],
}
OBJECTS = [(1, "cat", (0, 0, 10, 10)), (1, "dog", (20, 10, 10, 10)), (2, "dog", (20, 10, 10, 10))]


def save_picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (number, 0, 0)).save(path, "PNG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two pictures with boxes, one with a mask, two with a class; each is told by its red."""
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 9, "name": "zebra"}]
    ids = {row["name"]: row["id"] for row in categories}
    rows = [
        {"id": place, "image_id": image, "category_id": ids[name], "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for place, (image, name, box) in enumerate(OBJECTS, start=1)
    ]
    images = [{"id": 10 * number, "file_name": f"{number}.jpg", "width": 40, "height": 30} for number in SAID]
    for row in rows:
        row["image_id"] = 10 * int(str(row["image_id"]))
    for number in SAID:
        save_picture(tmp_path / BOXES / "data" / f"{number}.jpg", number)
    truth = {"images": images, "annotations": rows, "categories": categories}
    (tmp_path / BOXES / "annotations.json").write_text(json.dumps(truth))
    save_picture(tmp_path / MASKS / "a.jpg", 3)
    mask = np.zeros(SIZE[::-1], dtype=np.uint8)
    mask[:10], mask[10:20], mask[20:] = CAT, 0, 255
    Image.fromarray(mask).save(tmp_path / MASKS / "a.png")
    save_picture(tmp_path / CLASSES[0] / "n01440764" / "a.jpg", 4)  # a tench
    save_picture(tmp_path / CLASSES[1] / "n03000684" / "b.JPEG", 5)  # a chain saw
    return tmp_path


def answer(request: httpx.Request) -> httpx.Response:
    """A service that tells pictures by their red; its mask has cats above persons, and numbers of its own."""
    with Image.open(io.BytesIO(request.content)) as picture:
        number = int(np.asarray(picture)[0, 0, 0])
    said: dict[str, Any] = {
        "model": {"name": "m", "version": "v"},
        "timing_ms": {},
        "image": {"width": 40, "height": 30},
    }
    if request.url.path == "/detect":
        least = float(request.url.params.get("score_threshold", 0.75))
        boxes = [{"label": a, "label_id": 0, "score": b, "box": c} for a, b, c in SAID[number] if b >= least]
        assert request.url.params.get("max_detections", "100") == "100"
        said["detections"] = boxes
    elif request.url.path == "/segment":
        ids = np.ones((30, 40), dtype=np.uint8)
        ids[:10] = 2
        said["segments"] = [
            {"label": label, "label_id": number, "pixels": 1, "fraction": 0.5}
            for number, label in ((1, "person"), (2, "cat"))
        ]
        segments = [{"label_id": label, "counts": counts} for label, counts in encode_rle(ids).items()]
        said["mask"] = {"size": [30, 40], "segments": segments}
    else:
        assert request.url.params["top_k"] == "1"
        said["classes"] = [{"label": "tench" if number == 4 else "church", "label_id": 0, "probability": 0.5}]
    return httpx.Response(200, json=said)


@pytest.fixture
def client() -> Client:
    return Client("http://unihead", http=httpx.Client(transport=httpx.MockTransport(answer)))


def test_every_figure_by_hand(client: Client, root: Path) -> None:
    rows = list(measure(client, [root / "nowhere", root]))
    # Cats: found at once. Dogs: a wrong box, then one of two objects, at 51 of 101 recalls.
    average = (1 + 51 * 0.5 / 101) / 2
    assert {row.what.partition(": ")[2]: row.value for row in rows} == pytest.approx(
        {
            "mAP@0.5": average,
            "mAP@[.5:.95]": average,
            "precision by default": 1 / 2,
            "recall by default": 1 / 3,
            "F1 by default": 2 / 5,
            "boxes a picture by default": 1,
            "duplicates a picture by default": 1 / 2,
            "mIoU": 1 / 2,  # cat 1, background 0; void does not count
            "top-1": 1 / 2,
        }
    )
    assert [row.pycocotools for row in rows[:2]] == pytest.approx([average, average])
    assert [row.pictures for row in rows] == [2] * 7 + [1, 2]
    assert [row.what for row in rows if row.interval is None] == [row.what for row in rows[1:7]]


def test_sets_that_are_not_there_are_left_out_and_said(
    client: Client, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / BOXES / "annotations.json").unlink()
    (root / BOXES).rename(root / "elsewhere")
    first, *_ = measure(client, [root])
    assert first.what == f"{MASKS}: mIoU"
    assert capsys.readouterr().out == f"{BOXES}: not below {root}; left out\n"


def test_a_name_that_the_pictures_do_not_have_is_refused(root: Path) -> None:
    truth = json.loads((root / BOXES / "annotations.json").read_text())
    found = {10: [Detection((0, 0, 1, 1), "gnu", 0, 0.5)], 20: []}
    with pytest.raises(ValueError, match="'gnu', which is no class"):
        count_boxes(truth, found)


def test_the_table_has_a_line_a_figure() -> None:
    rows = [Row("a: b", 7, 0.25, Interval(0.125, 0.5), 0.375), Row("c", 8, 1.0)]
    assert format_table(rows)[2:] == ["| a: b | 7 | 0.2500 | 0.1250 to 0.5000 | 0.3750 |", "| c | 8 | 1.0000 |  |  |"]
