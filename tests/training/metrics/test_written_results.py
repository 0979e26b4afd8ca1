"""What `unihead-predict` writes for other tools, beside the evaluation, pycocotools and the readers of training."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from service.commands.predict import main
from service.engine.engine import Engine, load_engine
from service.engine.golden import GOLDEN_PICTURES
from service.settings import read_settings
from tests.outside import find_outside
from tests.service.fakes import make_contract
from tests.service.onnx_models import write_tiny_model
from training.config import Task
from training.data.datasets import DetectionSample
from training.data.sources import read_data
from training.metrics.detection import AveragePrecision
from training.metrics.evaluation import evaluate_task, predict_samples

# As the evaluation takes them: all that the graph gives.
ALL = ["--tasks", "detect", "--score-threshold", "0", "--max-detections", "1000", "--quiet"]


@pytest.fixture(scope="module")
def engine() -> Engine:
    """The shipped model."""
    return load_engine(read_settings().model)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx", make_contract())


def predict(*words: str | Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == 0


def measure(truth: Path, found: Path, kind: str = "bbox") -> tuple[float, float]:
    """The mean AP over ten overlaps, and that at 0.5, as pycocotools finds them."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        judged = COCOeval(coco, coco.loadRes(str(found)), kind)
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return float(judged.stats[0]), float(judged.stats[1])


def write_truth(path: Path, samples: Sequence[DetectionSample], names: Sequence[str]) -> None:
    """An annotation file with numbers of its own, which are neither those of the model nor in order."""
    numbers = {name: 1000 - 7 * label for label, name in enumerate(names)}
    images = [{"id": 50 - 3 * place, "file_name": sample.image.name} for place, sample in enumerate(samples)]
    annotations: list[dict[str, Any]] = []
    for image, sample in zip(images, samples, strict=True):
        for (x1, y1, x2, y2), label in zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True):
            width, height = x2 - x1, y2 - y1
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": numbers[names[label]],
                    "bbox": [x1, y1, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))


def make_samples(engine: Engine, folder: Path) -> list[DetectionSample]:
    """Truths that the model is near to, but not always: its own boxes, moved, some left out, some of another class."""
    rng = np.random.default_rng(0)
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    plain = [DetectionSample(path, *nothing, *nothing) for path in sorted(folder.glob("*.jpg"))]
    samples = []
    for sample, place, prediction in predict_samples(engine, plain, batch_size=2):
        assert isinstance(sample, DetectionSample)
        boxes = place.boxes_to_original(prediction.boxes)
        chosen = (rng.random(len(boxes)) < 0.6) & (boxes[:, 2:] - boxes[:, :2] > 8).all(axis=1)
        moved = boxes[chosen] + rng.normal(0, 0.04, (chosen.sum(), 4)) * np.tile(
            boxes[chosen, 2:] - boxes[chosen, :2], 2
        )
        labels = np.where(rng.random(chosen.sum()) < 0.8, prediction.labels[chosen], 0)
        samples.append(DetectionSample(sample.image, moved.astype(np.float32), labels, *nothing))
    return samples


def predict_and_compare(
    engine: Engine, samples: Sequence[DetectionSample], pictures: Path, truth: Path, folder: Path
) -> float:
    """The mean AP of what the command writes by pycocotools, which has to be that of the evaluation."""
    predict(pictures, "--coco", folder / "found.json", "--coco-like", truth, *ALL)
    predict(pictures, "--out", folder / "out", *ALL)
    mean, at_half = measure(truth, folder / "found.json")
    # Of the numbers that are written it is the same to the last digit...
    lines = (folder / "out" / "results.jsonl").read_text().splitlines()
    found = {Path(one["file"]).name: one["detections"] for one in map(json.loads, lines)}
    written = AveragePrecision(len(engine.contract.detection_classes))
    for sample in samples:
        mine = found[sample.image.name]
        written.update(
            boxes=np.array([one["box"] for one in mine], np.float64).reshape(-1, 4),  # type: ignore[arg-type]  # as they are
            scores=np.array([one["score"] for one in mine], np.float64),
            labels=np.array([one["label_id"] for one in mine], np.int64),
            target_boxes=sample.boxes,
            target_labels=sample.labels,
            crowd_boxes=sample.crowd_boxes,
            crowd_labels=sample.crowd_labels,
        )
    same = written.compute()
    assert mean == pytest.approx(same.map_50_95, abs=1e-9)
    assert at_half == pytest.approx(same.map_50, abs=1e-9)
    # ...and the network's own numbers differ by a hundredth of a pixel.
    own = evaluate_task(engine, Task.DETECTION, samples, batch_size=4)
    assert mean == pytest.approx(own["map_50_95"], abs=1e-3)
    assert at_half == pytest.approx(own["map_50"], abs=1e-3)
    return mean


@pytest.mark.slow
def test_pycocotools_finds_the_average_precision_of_the_evaluation(engine: Engine, tmp_path: Path) -> None:
    samples = make_samples(engine, GOLDEN_PICTURES)
    write_truth(tmp_path / "truth.json", samples, engine.contract.detection_classes)
    found = predict_and_compare(engine, samples, GOLDEN_PICTURES, tmp_path / "truth.json", tmp_path)
    assert 0.05 < found < 0.95


@pytest.mark.slow
def test_masks_beside_boxes_do_not_change_the_precision_of_boxes(engine: Engine, tmp_path: Path) -> None:
    samples = make_samples(engine, GOLDEN_PICTURES)
    write_truth(tmp_path / "truth.json", samples, engine.contract.detection_classes)
    for name, words in (("boxes.json", ALL), ("all.json", ALL[2:])):
        predict(GOLDEN_PICTURES, "--coco", tmp_path / name, "--coco-like", tmp_path / "truth.json", *words)
    boxes, everything = (measure(tmp_path / "truth.json", tmp_path / name) for name in ("boxes.json", "all.json"))
    assert boxes == everything
    assert any("segmentation" in one for one in json.loads((tmp_path / "all.json").read_text()))


@pytest.mark.slow
def test_pycocotools_finds_the_evaluations_average_precision_of_real_pictures(engine: Engine, tmp_path: Path) -> None:
    folder = find_outside("UNIHEAD_DATA", "data") / "mini_coco_det" / "val"
    truth = json.loads((folder / "labels.json").read_text())
    places = {name: place for place, name in enumerate(engine.contract.detection_classes)}
    labels = {one["id"]: places[one["name"]] for one in truth["categories"]}
    samples = []
    for image in truth["images"]:
        rows = [one for one in truth["annotations"] if one["image_id"] == image["id"]]
        xywh = np.array([one["bbox"] for one in rows], np.float64).reshape(-1, 4)
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32)
        own = np.array([labels[one["category_id"]] for one in rows], np.int64)
        crowd = np.array([one["iscrowd"] for one in rows], np.bool_)
        path = folder / "data" / image["file_name"]
        samples.append(DetectionSample(path, boxes[~crowd], own[~crowd], boxes[crowd], own[crowd]))
    predict_and_compare(engine, samples, folder / "data", folder / "labels.json", tmp_path)


def test_a_data_set_is_read_by_training(tmp_path: Path, tiny_model: Path) -> None:
    for path in sorted(GOLDEN_PICTURES.glob("*.jpg")):
        (tmp_path / "set" / "images").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "set" / "images")
    written = tmp_path / "set" / "labels.json"
    predict(
        tmp_path / "set" / "images", "--coco", written, "--coco-dataset", "--tasks", "detect", "--model", tiny_model
    )
    detection = read_data(tmp_path / "set").detection
    assert detection is not None
    samples = [*detection.train, *detection.val]
    assert len(samples) == 4
    said = json.loads(written.read_text())["annotations"]
    assert sum(len(one.boxes) for one in samples) == len(said) > 0


def test_labels_of_yolo_are_read_by_training(tmp_path: Path, tiny_model: Path) -> None:
    for number, path in enumerate(sorted(GOLDEN_PICTURES.glob("*.jpg"))):
        folder = tmp_path / "set" / "images" / ("val" if number == 0 else "train")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    images = tmp_path / "set" / "images"
    predict(images, "--recursive", "--yolo", tmp_path / "set", "--model", tiny_model)
    predict(images, "--recursive", "--out", tmp_path / "out", "--model", tiny_model)
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    boxes = {Path(one["file"]).name: [found["box"] for found in one["detections"]] for one in map(json.loads, lines)}
    detection = read_data(tmp_path / "set").detection
    assert detection is not None
    assert [len(detection.train), len(detection.val)] == [3, 1]
    for sample in (*detection.train, *detection.val):
        np.testing.assert_allclose(sample.boxes, np.array(boxes[sample.image.name]), atol=0.01)
