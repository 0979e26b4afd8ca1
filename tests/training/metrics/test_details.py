import json
from pathlib import Path

import numpy as np
import pytest

from service.engine.engine import Engine
from service.pictures.imaging import letterbox
from tests.training.fakes import Answer, KnownSession, make_config
from tests.training.there import there
from training.config import Task
from training.data.datasets import DataSets, load_image
from training.data.taxonomy import MINI
from training.inference import make_contract
from training.metrics.details import (
    ClassificationDetails,
    Details,
    DetailsError,
    DetectionDetails,
    SegmentationDetails,
    decode_mask,
    measure_details,
    read_details,
    write_details,
)
from training.metrics.evaluation import evaluate_task

BOXES = np.array([[4, 4, 40, 40], [8, 8, 20, 30], [0, 0, 9, 9]], dtype=np.float32)


def make_engine() -> Engine:
    """Says cat everywhere, three dogs, and the fourth class."""
    answer = Answer(np.full((16, 16), 8, dtype=np.uint8), BOXES, [16, 16, 16], class_id=3)
    return Engine(KnownSession(answer), make_contract(make_config(), MINI, {}, git_commit="0123abc"))


def measure(sets: DataSets, task: Task) -> tuple[dict[str, float], Details]:
    return measure_details(make_engine(), task, sets.split(task).val, batch_size=3)


@pytest.mark.parametrize("task", list(Task))
def test_the_metrics_are_those_of_the_evaluation(sets: DataSets, task: Task) -> None:
    metrics, details = measure(sets, task)
    assert metrics == evaluate_task(make_engine(), task, sets.split(task).val, batch_size=2)
    assert details.metrics == metrics
    assert [one.picture for one in details.pictures] == [sample.image.name for sample in sets.split(task).val]


def test_masks_are_told_class_by_class_and_picture_by_picture(sets: DataSets) -> None:
    metrics, details = measure(sets, Task.SEGMENTATION)
    assert isinstance(details, SegmentationDetails)
    counts = np.array(details.confusion)
    assert counts.sum() == counts[:, 8].sum()  # all of them were taken for cats
    present = [iou for iou in details.class_iou if iou is not None]
    assert [iou is None for iou in details.class_iou] == [not row.any() for row in counts]
    assert np.mean(present) == pytest.approx(metrics["mean_iou"])
    for sample, answer in zip(there(sets.segmentation).val, details.pictures, strict=True):
        alone = evaluate_task(make_engine(), Task.SEGMENTATION, [sample], batch_size=1)
        assert answer.score == pytest.approx(alone["mean_iou"])
        assert (decode_mask(answer) == 8).all()


def test_boxes_are_told_class_by_class_and_picture_by_picture(sets: DataSets) -> None:
    metrics, details = measure(sets, Task.DETECTION)
    assert isinstance(details, DetectionDetails)
    assert sum(details.objects) == sum(len(sample.boxes) for sample in there(sets.detection).val)
    assert np.mean(details.precision_50) == pytest.approx(metrics["map_50"], abs=1e-6)
    assert np.mean(details.precision_50_95) == pytest.approx(metrics["map_50_95"], abs=1e-6)
    for count, curve, ap in zip(details.objects, details.class_precision, details.class_ap_50, strict=True):
        assert (len(curve), ap is None) == ((101, False) if count else (0, True))
        assert ap is None or np.mean(curve) == pytest.approx(ap, abs=1e-6)
    assert details.calibration is not None
    assert details.calibration.counts[-1] > 0  # all scores are 1
    for sample, answer in zip(there(sets.detection).val, details.pictures, strict=True):
        assert answer.score == 0.0  # no dog is where the three are
        assert len(answer.boxes) == min(len(BOXES), len(sample.boxes))
        _, place = letterbox(load_image(sample.image), 64, (0, 0, 0))
        label, score, *box = answer.boxes[0]
        assert (label, score) == (16, 1.0)
        assert box == pytest.approx(place.boxes_to_original(BOXES)[0].tolist(), abs=0.06)


def test_classes_are_told_class_by_class_and_picture_by_picture(sets: DataSets) -> None:
    metrics, details = measure(sets, Task.CLASSIFICATION)
    assert isinstance(details, ClassificationDetails)
    counts = np.array(details.confusion)
    assert counts.sum() == counts[:, 3].sum() == len(there(sets.classification).val)
    assert counts[3, 3] / counts.sum() == metrics["top_1"]
    assert details.calibration.error == pytest.approx(1 - metrics["top_1"])  # it is always sure
    scores = [answer.score for answer in details.pictures]
    assert scores == [float(sample.label == 3) for sample in there(sets.classification).val]


def test_a_picture_without_objects_has_no_score(sets: DataSets) -> None:
    empty = [sample for sample in there(sets.detection).train if not len(sample.boxes)]
    _, details = measure_details(make_engine(), Task.DETECTION, [*there(sets.detection).val, *empty], batch_size=3)
    assert [answer.score is None for answer in details.pictures] == [False] * len(there(sets.detection).val) + [True]
    assert len(details.pictures[-1].boxes) == 1


def test_details_come_back_as_they_were_written(sets: DataSets, tmp_path: Path) -> None:
    written = {task: measure(sets, task)[1] for task in Task}
    for _ in range(2):  # a resumed run writes again
        write_details(tmp_path, "classification", list(written.values()))
    assert read_details(tmp_path, "classification") == written
    assert read_details(tmp_path, "polish") == {}
    for line in (tmp_path / "evaluations" / "classification.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize("text", ["not JSON", '{"kind": "detection"}', '{"picture": 1}'])
def test_a_file_of_another_version_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "detection.jsonl").write_text(text)
    with pytest.raises(DetailsError, match=r"detection.jsonl is not a file of details"):
        read_details(tmp_path, "detection")
