"""One task measured over a whole validation split, through the served decode, letterbox and post-processing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from service.engine.engine import Engine, Prediction
from service.pictures.imaging import Letterbox, UInt8Array, letterbox
from training.config import Task
from training.data.datasets import (
    ClassificationSample,
    DataError,
    DetectionSample,
    SegmentationSample,
    load_image,
    read_mask,
)
from training.data.feed.dataset import Sample
from training.metrics.classification import Accuracy
from training.metrics.detection import AveragePrecision
from training.metrics.segmentation import ConfusionMatrix, miou_eps_per_image

# The one figure that a task is judged by: what is forgotten, and what an interval is given for.
PRIMARY_METRIC = {
    Task.SEGMENTATION: "mean_iou",
    Task.DETECTION: "map_50",
    Task.CLASSIFICATION: "top_1",
}

Answer: TypeAlias = tuple[Sample, Letterbox, Prediction]
Counted: TypeAlias = ConfusionMatrix | AveragePrecision | Accuracy


@dataclass(frozen=True, slots=True)
class Measured:
    """One task over one split.

    Attributes:
        metrics: by name, each 0..1. `miou_eps_per_image` is not a quality: see `training.metrics.segmentation`.
        counted: what the metrics were computed from; `training.metrics.bootstrap` takes it for the primary metric.
    """

    metrics: dict[str, float]
    counted: Counted


def predict_samples(engine: Engine, samples: Sequence[Sample], *, batch_size: int) -> Iterator[Answer]:
    """Answer every picture, in order, batch by batch."""
    contract = engine.contract
    for start in range(0, len(samples), batch_size):
        chosen = samples[start : start + batch_size]
        squares, places = zip(
            *(letterbox(load_image(sample.image), contract.input_size, contract.letterbox.fill) for sample in chosen),
            strict=True,
        )
        yield from zip(chosen, places, engine.predict(squares), strict=True)


def evaluate_task(engine: Engine, task: Task, samples: Sequence[Sample], *, batch_size: int) -> dict[str, float]:
    """Measure as `measure_task` does, and give the metrics alone."""
    return measure_task(engine, task, samples, batch_size=batch_size).metrics


def measure_task(
    engine: Engine,
    task: Task,
    samples: Sequence[Sample],
    *,
    batch_size: int,
    on_answer: Callable[[Sample, Letterbox, Prediction], None] = lambda *_: None,
) -> Measured:
    """Measure one task exactly over a split.

    Args:
        engine: torch or ONNX behind it, the figures come about the same way.
        task: which one; the samples must be of it.
        samples: the validation split.
        batch_size: pictures per forward pass.
        on_answer: is given every picture and its answer, in order.

    Raises:
        DataError: a picture or mask cannot be used.
    """
    answers = _tell(predict_samples(engine, samples, batch_size=batch_size), on_answer)
    if task is Task.SEGMENTATION:
        return _segmentation(engine, answers)
    if task is Task.DETECTION:
        return _detection(engine, answers)
    return _classification(engine, answers)


def _tell(answers: Iterator[Answer], on_answer: Callable[[Sample, Letterbox, Prediction], None]) -> Iterator[Answer]:
    for answer in answers:
        on_answer(*answer)
        yield answer


def _segmentation(engine: Engine, answers: Iterator[Answer]) -> Measured:
    num_classes = len(engine.contract.segmentation_classes)
    confusion = ConfusionMatrix(num_classes)
    legacy = []
    for sample, place, prediction in answers:
        assert isinstance(sample, SegmentationSample)  # noqa: S101 - evaluate_task's contract
        predicted = place.mask_to_original(prediction.mask, engine.contract.mask_stride)
        target = read_mask(sample.mask, num_classes)
        if target.shape != predicted.shape:
            raise DataError(f"{sample.mask}: the mask is {target.shape}, its picture {predicted.shape}; wanted one")
        confusion.update(predicted, target)
        legacy.append(miou_eps_per_image(predicted, target, num_classes))
    found = confusion.compute()
    metrics = {
        "mean_iou": found.mean_iou,
        "foreground_mean_iou": found.foreground_mean_iou,
        "pixel_accuracy": found.pixel_accuracy,
        "miou_eps_per_image": statistics.fmean(legacy),
    }
    return Measured(metrics, confusion)


def _detection(engine: Engine, answers: Iterator[Answer]) -> Measured:
    precision = AveragePrecision(len(engine.contract.detection_classes))
    for sample, place, prediction in answers:
        assert isinstance(sample, DetectionSample)  # noqa: S101 - evaluate_task's contract
        boxes = place.boxes_to_original(prediction.boxes)
        precision.add_sample(sample, boxes=boxes, scores=prediction.scores, labels=prediction.labels)
    found = precision.compute()
    return Measured({"map_50": found.map_50, "map_50_95": found.map_50_95}, precision)


def _classification(engine: Engine, answers: Iterator[Answer]) -> Measured:
    accuracy = Accuracy(len(engine.contract.classification_classes))
    for sample, _, prediction in answers:
        assert isinstance(sample, ClassificationSample)  # noqa: S101 - evaluate_task's contract
        accuracy.update(prediction.class_probs[None], np.array([sample.label]))
    found = accuracy.compute()
    return Measured({"top_1": found.top_1, "top_5": found.top_5}, accuracy)


def measure_ms_per_image(engine: Engine, *, repeats: int = 20) -> float:
    """Time the forward pass of one letterboxed picture, in ms: the median after three passes to warm up."""
    size = engine.contract.input_size
    square: UInt8Array = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    times = []
    for _ in range(3 + repeats):
        started = time.perf_counter()
        engine.predict([square])
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[3:])
