"""Scores that mean the chance of being right, and the threshold of the best F1: found on pictures kept for choices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from export.to_onnx import ExportError, Overrides
from service.engine.engine import Engine
from training.checkpoint import Checkpoint
from training.config import Task
from training.data.datasets import ClassificationSample, DataSets, SplitName
from training.data.feed.dataset import Sample
from training.inference import build_engine, choose_tasks, read_taxonomy, restore_model
from training.metrics.calibration import (
    Calibration,
    UncalibratedError,
    apply_scores,
    apply_temperature,
    compute_calibration,
    fit_scores,
    fit_temperature,
)
from training.metrics.detection import AveragePrecision
from training.metrics.evaluation import measure_task, predict_samples
from training.metrics.operating import JudgedBoxes, OperatingPoint, find_best_threshold, measure_at

# Digits of what is found: more would tell one sample of pictures from the next.
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Found:
    """What calibration found.

    Attributes:
        overrides: those that were asked for, and what makes scores chances.
        reliability: by task, before and after.
        point: what boxes are like at the threshold; None where the model gives none.
    """

    overrides: Overrides
    reliability: Mapping[Task, tuple[Calibration, Calibration]]
    point: OperatingPoint | None


def calibrate(checkpoint: Checkpoint, sets: DataSets, split: SplitName, overrides: Overrides) -> Found:
    """Measure boxes and classes as the exported file will give them, and find what makes their scores chances.

    Scores of boxes get a scale and a bias of their logits, one pair for all classes, and classes a temperature; both
    leave the order as it is, and so average precision and accuracy. The threshold is of the best F1 over the boxes of
    all classes, at an IoU of 0.5, unless the overrides have one.

    Args:
        checkpoint: of a finished run.
        sets: the data.
        split: whose pictures are measured; a task without any stays as it is.
        overrides: what else the file is to do otherwise than the run.

    Raises:
        CheckpointError: the weights do not fit the network.
        DataError: the data has no such pictures of boxes or classes.
        ExportError: an override is out of its range, or the scores say nothing: no box is right, say.
        TaxonomyError: the data has other classes.
    """
    raw = dataclasses.replace(overrides, score_scale=1.0, score_bias=0.0, class_temperature=1.0).apply(
        checkpoint.parsed_config()
    )
    network = restore_model(checkpoint)
    engine = build_engine(network, raw, checkpoint.taxonomy, torch.device("cpu"), git_commit=checkpoint.git_commit)
    tasks = choose_tasks(engine, read_taxonomy(engine.contract).tasks, sets, owner="the checkpoint")
    scored = [task for task in tasks if task is not Task.SEGMENTATION]
    reliability: dict[Task, tuple[Calibration, Calibration]] = {}
    point = None
    for task, samples in sets.pictures(scored, split).items():
        try:
            if task is Task.DETECTION:
                judged = _judge(engine, samples, raw.eval_batch_size)
                overrides, reliability[task], point = _calibrate_boxes(judged, overrides)
            else:
                overrides, reliability[task] = _calibrate_classes(engine, samples, raw.eval_batch_size, overrides)
        except UncalibratedError as error:
            raise ExportError(f"{task} cannot be calibrated on {len(samples)} pictures: {error}") from error
    return Found(overrides, reliability, point)


def _judge(engine: Engine, samples: Sequence[Sample], batch_size: int) -> JudgedBoxes:
    counted = measure_task(engine, Task.DETECTION, samples, batch_size=batch_size).counted
    assert isinstance(counted, AveragePrecision)  # noqa: S101 - what boxes are counted by
    return counted.judge_boxes()


def _calibrate_boxes(
    judged: JudgedBoxes, overrides: Overrides
) -> tuple[Overrides, tuple[Calibration, Calibration], OperatingPoint]:
    scale, bias = (round(value, _DIGITS) for value in fit_scores(judged.scores, judged.right))
    calibrated = dataclasses.replace(judged, scores=apply_scores(judged.scores, scale, bias))
    threshold = overrides.score_threshold
    if threshold is None:
        threshold = find_best_threshold(calibrated)
    overrides = dataclasses.replace(overrides, score_scale=scale, score_bias=bias, score_threshold=threshold)
    before, after = (compute_calibration(one.scores, one.right) for one in (judged, calibrated))
    return overrides, (before, after), measure_at(calibrated, threshold)


def _calibrate_classes(
    engine: Engine, samples: Sequence[Sample], batch_size: int, overrides: Overrides
) -> tuple[Overrides, tuple[Calibration, Calibration]]:
    probs, labels = [], []
    for sample, _, prediction in predict_samples(engine, samples, batch_size=batch_size):
        assert isinstance(sample, ClassificationSample)  # noqa: S101 - pictures of classification
        probs.append(prediction.class_probs.astype(np.float64))
        labels.append(sample.label)
    before, true = np.stack(probs), np.array(labels)
    temperature = round(fit_temperature(before, true), _DIGITS)
    after = apply_temperature(before, temperature)
    tables = [compute_calibration(one.max(axis=1), one.argmax(axis=1) == true) for one in (before, after)]
    return dataclasses.replace(overrides, class_temperature=temperature), (tables[0], tables[1])
