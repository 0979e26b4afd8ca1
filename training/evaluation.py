"""One task measured over a whole validation split, through the served decode, letterbox and post-processing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence

import numpy as np

from service.engine import Engine, Prediction
from service.imaging import Letterbox, UInt8Array, letterbox
from service.postprocess import mask
from training.config import Task
from training.data.datasets import (
    ClassificationSample,
    DataError,
    DetectionSample,
    SegmentationSample,
    load_image,
    read_mask,
)
from training.data.loaders import Sample
from training.metrics.classification import Accuracy
from training.metrics.detection import AveragePrecision
from training.metrics.segmentation import ConfusionMatrix, miou_eps_per_image


def predict_samples(
    engine: Engine, samples: Sequence[Sample], *, batch_size: int
) -> Iterator[tuple[Sample, Letterbox, Prediction]]:
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
    """Measure one task exactly over a split.

    Args:
        engine: torch or ONNX behind it, the figures come about the same way.
        task: which one; the samples must be of it.
        samples: the validation split.
        batch_size: pictures per forward pass.

    Returns:
        Metrics by name, each 0..1. `miou_eps_per_image` is not a quality: see `training.metrics.segmentation`.

    Raises:
        DataError: a picture or mask cannot be used.
    """
    answers = predict_samples(engine, samples, batch_size=batch_size)
    if task is Task.SEGMENTATION:
        return _segmentation(engine, answers)
    if task is Task.DETECTION:
        return _detection(engine, answers)
    return _classification(engine, answers)


def _segmentation(engine: Engine, answers: Iterator[tuple[Sample, Letterbox, Prediction]]) -> dict[str, float]:
    num_classes = len(engine.contract.segmentation_classes)
    confusion = ConfusionMatrix(num_classes)
    legacy = []
    for sample, place, prediction in answers:
        assert isinstance(sample, SegmentationSample)  # noqa: S101 - evaluate_task's contract
        predicted = mask(prediction, place, mask_stride=engine.contract.mask_stride)
        target = read_mask(sample.mask, num_classes)
        if target.shape != predicted.shape:
            raise DataError(f"{sample.mask}: the mask is {target.shape}, its picture {predicted.shape}; wanted one")
        confusion.update(predicted, target)
        legacy.append(miou_eps_per_image(predicted, target, num_classes))
    metrics = confusion.compute()
    return {
        "mean_iou": metrics.mean_iou,
        "foreground_mean_iou": metrics.foreground_mean_iou,
        "pixel_accuracy": metrics.pixel_accuracy,
        "miou_eps_per_image": statistics.fmean(legacy),
    }


def _detection(engine: Engine, answers: Iterator[tuple[Sample, Letterbox, Prediction]]) -> dict[str, float]:
    precision = AveragePrecision(len(engine.contract.detection_classes))
    for sample, place, prediction in answers:
        assert isinstance(sample, DetectionSample)  # noqa: S101 - evaluate_task's contract
        precision.update(
            boxes=place.boxes_to_original(prediction.boxes),
            scores=prediction.scores,
            labels=prediction.labels,
            target_boxes=sample.boxes,
            target_labels=sample.labels,
            crowd_boxes=sample.crowd_boxes,
            crowd_labels=sample.crowd_labels,
        )
    metrics = precision.compute()
    return {"map_50": metrics.map_50, "map_50_95": metrics.map_50_95}


def _classification(engine: Engine, answers: Iterator[tuple[Sample, Letterbox, Prediction]]) -> dict[str, float]:
    accuracy = Accuracy(len(engine.contract.classification_classes))
    for sample, _, prediction in answers:
        assert isinstance(sample, ClassificationSample)  # noqa: S101 - evaluate_task's contract
        accuracy.update(prediction.class_probs[None], np.array([sample.label]))
    metrics = accuracy.compute()
    return {"top_1": metrics.top_1, "top_5": metrics.top_5}


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
