"""Real detectors in UNIHEAD_TEACHERS on COCO's validation pictures in UNIHEAD_DATA, decoded a second time by hand.

Only the resizing is shared: resizers differ by one level of 255, which moves the average precision of sixty pictures by
0.002 (0.3555 with ours, 0.3576 with Pillow's). The folder holds deimv2_hgnetv2_femto_coco.onnx (DEIMv2-ONNX-Sample) and
yolox_nano.onnx (YOLOX), both Apache-2.0.
"""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from service.pictures.resizing import resize
from tests.outside import find_outside
from tests.training.data.labelling.running import label
from training.data.taxonomy import COCO as NAMES

pytestmark = pytest.mark.slow  # some seconds

DEIM = """
[input]
size = 416
fit = "stretch"
scale = 1
name = "images"
size_name = "orig_target_sizes"
[output]
kind = "boxes"
labels = "labels"
unit = "original"
[classes]
names = "coco"
"""
YOLOX = """
[input]
size = 416
fit = "letterbox"
place = "top-left"
scale = 255
colour = "bgr"
[output]
kind = "yolox"
[classes]
names = "coco"
"""
# File name, class, x, y, width, height, score.
Row = tuple[str, str, float, float, float, float, float]


class Told(Protocol):
    def __call__(self, name: str, value: object) -> None: ...


@pytest.fixture(scope="module")
def folder() -> Path:
    return find_outside("UNIHEAD_TEACHERS", "weights/teachers")


@pytest.fixture
def truth(mini_sets_root: Path) -> Path:
    return mini_sets_root / "mini_coco_det" / "val" / "labels.json"


def open_session(path: Path) -> Any:  # noqa: ANN401 - ONNX Runtime has no types
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def decode_deim(session: Any, picture: Image.Image) -> Iterator[tuple[int, NDArray[Any], float]]:  # noqa: ANN401
    pixels = resize(np.asarray(picture), 416, 416).astype(np.float32) / 255
    feed = {"images": pixels.transpose(2, 0, 1)[None], "orig_target_sizes": np.array([picture.size])}
    labels, boxes, scores = session.run(["labels", "boxes", "scores"], feed)
    for found, box, score in zip(labels[0], boxes[0], scores[0], strict=True):
        yield int(found), box, float(score)


def decode_yolox(session: Any, picture: Image.Image) -> Iterator[tuple[int, NDArray[Any], float]]:  # noqa: ANN401
    ratio = 416 / max(picture.size)
    width, height = (round(side * ratio) for side in picture.size)
    canvas = np.full((416, 416, 3), 114, dtype=np.float32)
    canvas[:height, :width] = resize(np.asarray(picture), width, height)
    pixels = canvas[..., ::-1].transpose(2, 0, 1)
    (grid,) = session.run(None, {"images": np.ascontiguousarray(pixels)[None]})
    row, rows = 0, []
    for stride in (8, 16, 32):
        for y in range(416 // stride):
            for x in range(416 // stride):
                dx, dy, w, h, objectness = grid[0, row, :5]
                found = int(grid[0, row, 5:].argmax())
                score = float(objectness * grid[0, row, 5 + found])
                row += 1
                if score > 0.01:
                    centre, half = np.array([(x + dx), (y + dy)]) * stride, np.exp([w, h]) * stride / 2
                    rows.append((found, np.concatenate([centre - half, centre + half]) / ratio, score))
    kept: list[tuple[int, NDArray[Any], float]] = []
    for one in sorted(rows, key=lambda one: -one[2]):
        if all(one[0] != other[0] or overlap(one[1], other[1]) <= 0.65 for other in kept):
            kept.append(one)
    yield from kept


def overlap(one: NDArray[Any], other: NDArray[Any]) -> float:
    width, height = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = max(width, 0) * max(height, 0)
    return float(shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared))


def decode_all(path: Path, pictures: Path) -> list[Row]:
    session = open_session(path)
    decode = decode_deim if path.stem.startswith("deim") else decode_yolox
    rows: list[Row] = []
    for file in sorted(pictures.iterdir()):
        with Image.open(file) as picture:
            for found, (x1, y1, x2, y2), score in decode(session, picture.convert("RGB")):
                rows.append((file.name, NAMES[found], float(x1), float(y1), float(x2 - x1), float(y2 - y1), score))
    return rows


def read_labels(path: Path) -> list[Row]:
    document = json.loads(path.read_text())
    files: Mapping[int, str] = {row["id"]: row["file_name"] for row in document["images"]}
    names: Mapping[int, str] = {row["id"]: row["name"] for row in document["categories"]}
    return [
        (files[row["image_id"]], names[row["category_id"]], *row["bbox"], row["score"])
        for row in document["annotations"]
    ]


def measure(truth: Path, rows: list[Row]) -> tuple[float, float]:
    """COCO's average precision, and that at an overlap of 0.5, by pycocotools."""
    document = json.loads(truth.read_text())
    images = {row["file_name"]: row["id"] for row in document["images"]}
    categories = {row["name"]: row["id"] for row in document["categories"]}
    found = [
        {"image_id": images[file], "category_id": categories[name], "bbox": [*box], "score": score}
        for file, name, *box, score in rows
        if name in categories
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        real = COCO(str(truth))
        evaluation = COCOeval(real, real.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def describe(folder: Path, model: Path, text: str) -> Path:
    path = folder / f"{model.stem}.toml"
    path.write_text(f'model = "{model}"\n{text}')
    return path


def test_labels_are_as_good_as_the_network_decoded_by_hand(
    folder: Path, truth: Path, tmp_path: Path, record_property: Told
) -> None:
    pictures = truth.parent / "data"
    teachers, alone = [], []
    for name, text, more in (
        ("deimv2_hgnetv2_femto_coco", DEIM, ()),
        ("yolox_nano", YOLOX, ("--score-floor", "0.01")),
    ):
        model, out = folder / f"{name}.onnx", tmp_path / name
        teachers.append(describe(tmp_path, model, text))
        assert label(out, pictures, teachers[-1], more=more) == 0
        ours, theirs = measure(truth, read_labels(out / "labels.json")), measure(truth, decode_all(model, pictures))
        record_property(name, f"AP {ours[0]:.4f}, by hand {theirs[0]:.4f}")
        assert ours == pytest.approx(theirs, abs=0.002)
        alone.append(ours)
    assert label(tmp_path / "both", pictures, *teachers, more=("--score-floor", "0.01")) == 0
    fused = measure(truth, read_labels(tmp_path / "both" / "labels.json"))
    record_property("fused", f"AP {fused[0]:.4f}, AP50 {fused[1]:.4f}")
    # The weaker one finds objects, and moves the boxes of the other.
    assert fused[1] > max(each[1] for each in alone)
    assert fused[0] > alone[1][0]
