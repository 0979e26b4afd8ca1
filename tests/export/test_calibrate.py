import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from export.calibrate import calibrate
from export.cli import app
from export.to_onnx import ExportError, Overrides
from service.engine.engine import Engine, load_engine
from service.pictures.imaging import UInt8Array
from tests.training.make_sets import COLOURS
from training.checkpoint import Checkpoint, save_checkpoint
from training.config import Task
from training.data.datasets import DataError, DataSets
from training.data.sources import read_data
from training.data.taxonomy import COCO
from training.inference import build_engine

LABELS = tuple(COCO.index(name) for name in ("cat", "dog", "person"))
PLACES, CLASSES = 100, 10
# Of the first class, that of two of the four pictures.
SURE = 0.9


class Finder:
    """Finds the rectangles of `tests.training.make_sets` by colour, and as many boxes where there is nothing.

    All score 0.9, but those where nothing is and that it does not take for a cat: these score 0.2.
    """

    def __init__(self, *, blind: bool = False) -> None:
        self.blind = blind

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        count, size = len(images), images.shape[1]
        boxes = np.zeros((count, PLACES, 4), dtype=np.float32)
        scores, labels = np.zeros((count, PLACES), dtype=np.float32), np.zeros((count, PLACES), dtype=np.int64)
        found = np.zeros(count, dtype=np.int64)
        probs = np.full((count, CLASSES), (1 - SURE) / (CLASSES - 1), dtype=np.float32)
        probs[:, 0] = SURE
        for place, image in enumerate(images):
            rows = []
            for label, colour in zip(LABELS, COLOURS, strict=True):
                ys, xs = np.nonzero(np.abs(image.astype(int) - colour).sum(axis=2) < 60)
                if len(xs) and not self.blind:
                    rows.append(((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1), 0.9, label))
                rows.append(((0, size - 3, 3, size), 0.9 if label == LABELS[0] else 0.2, label))
            for slot, (box, score, label) in enumerate(sorted(rows, key=lambda row: -row[1])):
                boxes[place, slot], scores[place, slot], labels[place, slot] = box, score, label
            found[place] = len(rows)
        masks = np.zeros((count, size // 4, size // 4), dtype=np.uint8)
        names = ("boxes", "scores", "labels", "num_detections", "mask", "class_probs")
        return dict(zip(names, (boxes, scores, labels, found, masks, probs), strict=True))


@pytest.fixture
def sets(tiny_sets: Path) -> DataSets:
    return read_data(tiny_sets)


@pytest.fixture
def sees(monkeypatch: pytest.MonkeyPatch, finished: Checkpoint) -> Checkpoint:
    """A checkpoint whose network is the finder."""
    put(monkeypatch, Finder())
    return finished


def put(monkeypatch: pytest.MonkeyPatch, finder: Finder) -> None:
    monkeypatch.setattr(
        "export.calibrate.build_engine", lambda *words, **more: Engine(finder, build_engine(*words, **more).contract)
    )


def test_scores_become_the_share_that_is_right(sees: Checkpoint, sets: DataSets) -> None:
    found = calibrate(sees, sets, "val", Overrides(iou_threshold=0.4))
    before, after = found.reliability[Task.DETECTION]
    assert sum(before.counts) == sum(after.counts) > 12
    assert after.error < 0.1 < before.error
    assert found.point is not None
    assert found.point.score_threshold == found.overrides.score_threshold
    assert found.point.recall > 0.5
    assert found.overrides.iou_threshold == 0.4  # what was asked for stays
    assert (found.overrides.score_scale or 0) > 0
    sure, cooler = found.reliability[Task.CLASSIFICATION]
    assert cooler.error < sure.error
    assert (found.overrides.class_temperature or 0) > 1


def test_a_threshold_that_is_asked_for_stays(sees: Checkpoint, sets: DataSets) -> None:
    found = calibrate(sees, sets, "val", Overrides(score_threshold=0.77))
    assert found.overrides.score_threshold == 0.77
    assert found.point is not None
    assert found.point.score_threshold == 0.77


def test_a_task_without_such_pictures_stays_as_it_is(sees: Checkpoint, sets: DataSets) -> None:
    assert sets.detection is not None
    chosen = dataclasses.replace(sets.detection, choose=sets.detection.val)
    found = calibrate(sees, dataclasses.replace(sets, detection=chosen), "choose", Overrides())
    assert set(found.reliability) == {Task.DETECTION}
    assert found.overrides.class_temperature is None
    with pytest.raises(DataError, match="has no choose"):
        calibrate(sees, sets, "choose", Overrides())


def test_where_no_box_is_right_nothing_can_be_calibrated(
    monkeypatch: pytest.MonkeyPatch, finished: Checkpoint, sets: DataSets
) -> None:
    put(monkeypatch, Finder(blind=True))
    with pytest.raises(ExportError, match=r"detection cannot be calibrated on 4 pictures: 0 of \d+ answers are right"):
        calibrate(finished, sets, "val", Overrides())


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "UNIHEAD_DATA": ""})


@pytest.mark.slow
def test_the_command_writes_what_it_found_into_the_file(sees: Checkpoint, tiny_sets: Path, tmp_path: Path) -> None:
    checkpoint, model = tmp_path / "checkpoint.pt", tmp_path / "model.onnx"
    save_checkpoint(sees, checkpoint)
    words = ("onnx", "--checkpoint", checkpoint, "--out", model, "--calibrate-on", tiny_sets)
    refused = run(*words)
    assert refused.exit_code == 1
    assert "the data has no choose" in refused.output
    assert not model.exists()
    done = run(*words, "--split", "val")
    assert done.exit_code == 0, done.output
    contract = load_engine(model).contract
    assert contract.version.endswith("-calibrated")
    assert contract.class_temperature > 1
    assert f"score_scale {contract.score_scale}" in done.output
    assert f"score_threshold {contract.score_threshold:.3f}, precision" in done.output
    assert "expected calibration error" in done.output
