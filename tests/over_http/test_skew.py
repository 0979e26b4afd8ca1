"""No skew: what the service answers over HTTP scores what `unihead-train evaluate` says of the same file."""

import base64
import io
import warnings
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.app import create_app
from service.engine.engine import Engine, load_engine
from service.settings import Settings
from tests.outside import find_outside
from tests.training.make_sets import write_tiny_sets
from tests.training.there import there
from training.config import Task
from training.data.datasets import DataSets, DataWarning, read_mask
from training.data.feed.dataset import Sample
from training.data.sources import read_data
from training.metrics.classification import Accuracy
from training.metrics.detection import AveragePrecision
from training.metrics.evaluation import PRIMARY_METRIC, evaluate_task
from training.metrics.segmentation import ConfusionMatrix

pytestmark = pytest.mark.slow

MODEL = Settings.model_fields["model"].default
# As in `export.parity`: 0.01 would be half of what the seed preset scores in detection.
MAX_SKEW = 0.002
MAX_CONTRACT_DIFFERENCE = 0.01  # it may have been measured on another machine


@pytest.fixture(scope="module", params=["synthetic", pytest.param("real", marks=pytest.mark.full)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def sets(kind: str, tmp_path_factory: pytest.TempPathFactory) -> DataSets:
    """A synthetic copy of the mini sets; and those that UNIHEAD_DATA names, which take longer."""
    if kind == "real":
        root = find_outside("UNIHEAD_DATA", "data")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # what is left out of train does not matter here
            return read_data(root)
    return read_data(write_tiny_sets(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine(MODEL)


async def ask_all(engine: Engine, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """POST each picture as it lies on the disk; everything that the service would say about it."""
    query = {"score_threshold": 0, "max_detections": engine.contract.max_detections, "top_k": 1}
    app = create_app(Settings(model=MODEL), engine)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        answers = [await http.post("/predict", params=query, content=sample.image.read_bytes()) for sample in samples]
    for answer, sample in zip(answers, samples, strict=True):
        assert answer.status_code == 200, (sample.image, answer.text)
    return [answer.json() for answer in answers]


def score_masks(sets: DataSets, answers: list[dict[str, Any]], engine: Engine) -> float:
    num_classes = len(engine.contract.segmentation_classes)
    confusion = ConfusionMatrix(num_classes)
    for sample, answer in zip(there(sets.segmentation).val, answers, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(answer["mask"]["data"]))) as mask:
            assert mask.mode == "P"
            confusion.update(np.asarray(mask), read_mask(sample.mask, num_classes))
    return confusion.compute().mean_iou


def score_boxes(sets: DataSets, answers: list[dict[str, Any]], engine: Engine) -> float:
    names = engine.contract.detection_classes
    precision = AveragePrecision(len(names))
    for sample, answer in zip(there(sets.detection).val, answers, strict=True):
        found = answer["detections"]
        precision.update(
            boxes=np.array([one["box"] for one in found], dtype=np.float32).reshape(-1, 4),
            scores=np.array([one["score"] for one in found], dtype=np.float32),
            labels=np.array([names.index(one["label"]) for one in found], dtype=np.int64),
            target_boxes=sample.boxes,
            target_labels=sample.labels,
            crowd_boxes=sample.crowd_boxes,
            crowd_labels=sample.crowd_labels,
        )
    return precision.compute().map_50


def score_classes(sets: DataSets, answers: list[dict[str, Any]], engine: Engine) -> float:
    names = engine.contract.classification_classes
    accuracy = Accuracy(len(names))
    for sample, answer in zip(there(sets.classification).val, answers, strict=True):
        best = np.array([[name == answer["classes"][0]["label"] for name in names]], dtype=np.float32)
        accuracy.update(best, np.array([sample.label]))
    return accuracy.compute().top_1


SCORES = {Task.SEGMENTATION: score_masks, Task.DETECTION: score_boxes, Task.CLASSIFICATION: score_classes}


@pytest.mark.anyio
@pytest.mark.parametrize("task", list(Task))
async def test_the_service_scores_what_the_evaluation_says(
    kind: str, sets: DataSets, engine: Engine, task: Task
) -> None:
    samples: Sequence[Sample] = sets.split(task).val
    served = SCORES[task](sets, await ask_all(engine, samples), engine)
    evaluated = evaluate_task(engine, task, samples, batch_size=8)[PRIMARY_METRIC[task]]
    assert served == pytest.approx(evaluated, abs=MAX_SKEW)
    key = f"{task}/{PRIMARY_METRIC[task]}"
    if kind == "real" and key in engine.contract.metrics:
        assert served == pytest.approx(engine.contract.metrics[key], abs=MAX_CONTRACT_DIFFERENCE)
