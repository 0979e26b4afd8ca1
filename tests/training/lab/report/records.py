"""Runs as the report knows them, made by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from service.engine.engine import Engine
from tests.training.fakes import Answer, KnownSession, make_config
from training.config import Task
from training.data.datasets import DataSets
from training.data.taxonomy import MINI
from training.inference import make_contract
from training.lab.report.record import RunRecord
from training.metrics.details import Details, measure_details

LEGACY = {"miou_eps_per_image": 0.95, "foreground_mean_iou": 0.1, "pixel_accuracy": 0.7}


def evaluation(stage: Task, *values: float) -> dict[str, Any]:
    """Mean IoU, mAP@0.5 and top-1, as far as they were learned."""
    primary = [("mean_iou", LEGACY), ("map_50", {"map_50_95": 0.01}), ("top_1", {"top_5": 0.9})]
    metrics = {
        str(task): {name: value, **others} for task, value, (name, others) in zip(Task, values, primary, strict=False)
    }
    return {
        "kind": "evaluation",
        "stage": str(stage),
        "metrics": metrics,
        "ms_per_image": 12.34,
        "fisher_seconds": 1.0,
        "seconds": 60.0,
    }


def epoch(stage: Task, number: int, **more: object) -> dict[str, Any]:
    losses = {str(stage): 1 / number, "ewc/segmentation": 0.1, "loss": 1 / number + 0.1}
    return {"kind": "epoch", "stage": str(stage), "epoch": number, "losses": losses, "seconds": 30.0, **more}


# Segmentation 0.40 -> 0.42 -> 0.36 (a gain of 5 %, then a drop of 10 %); detection 0 -> 0.1.
EVALUATIONS = (
    evaluation(Task.SEGMENTATION, 0.40),
    evaluation(Task.DETECTION, 0.42, 0.0),
    evaluation(Task.CLASSIFICATION, 0.36, 0.1, 0.8),
)


def make_details(sets: DataSets) -> dict[Task, Details]:
    """Of a network that sees persons everywhere, one dog, and the fourth class."""
    boxes = np.array([[4, 4, 40, 40]], dtype=np.float32)
    answer = Answer(np.full((16, 16), 12, dtype=np.uint8), boxes, [16], class_id=3)
    engine = Engine(KnownSession(answer), make_contract(make_config(), MINI, {}, git_commit="0123abc"))
    return {task: measure_details(engine, task, sets.split(task).val, batch_size=4)[1] for task in Task}


def make_record(evaluations: Sequence[dict[str, Any]] = EVALUATIONS, **changes: Any) -> RunRecord:  # noqa: ANN401 - fields
    """A finished run of the preset `tiny`, one epoch a stage, without details unless they are given."""
    values: dict[str, Any] = {
        "config": make_config(),
        "taxonomy": MINI,
        "git_commit": "0123abc",
        "is_finished": True,
        "parameters": 1_268_724,
        "pictures": dict.fromkeys(map(str, Task), 6),
        "history": [row for entry in evaluations for row in (epoch(Task(entry["stage"]), 1), entry)],
        "details": {},
        "data": None,
        "environments": [],
    }
    return RunRecord(**(values | changes))
